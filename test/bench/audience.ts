// Audiences: the channels and ids that connections ask for, and the targets of events.
/** Targets of events, and who reads them. Chosen by name, because a function cannot be sent to a process or a thread. */
export interface Audience {
  /** Returns the query of a connection. */
  query(index: number): string;
  /** Returns the target of an event, as a query. */
  target(seq: number): string;
  /** Returns the targets that a connection reads. */
  reads(index: number): readonly string[];
}

/** Names of audiences. The number of channels is part of the name: `channels 1000`. */
export type AudienceName = "all" | "own" | `channels ${number}`;

/** Every connection reads everything, and none has an id. */
const all: Audience = {
  query: () => "",
  target: () => "",
  reads: () => [""],
};

/** Every connection has an id, two shared channels and a channel of its own. One of 100 events is for one client. */
function own(clients: number): Audience {
  return {
    query: (index) => `?id=c${index}&channel=a&channel=b&channel=own-${index}`,
    target(seq) {
      const turn = Math.floor(seq / 100);
      if (seq % 100 !== 0) return seq % 2 === 0 ? "?channel=a" : "?channel=b";
      // Far from the previous client; by id and by channel in turn.
      const client = (turn * 7919) % clients;
      return turn % 2 === 0 ? `?id=c${client}` : `?channel=own-${client}`;
    },
    reads: (index) => ["?channel=a", "?channel=b", `?channel=own-${index}`, `?id=c${index}`],
  };
}

/** Spreads the connections over `count` channels, one channel each, and sends events to the channels in turn. */
function channels(count: number): Audience {
  return {
    query: (index) => `?channel=ch${index % count}`,
    target: (seq) => `?channel=ch${seq % count}`,
    reads: (index) => [`?channel=ch${index % count}`],
  };
}

export function audience(name: AudienceName, clients: number): Audience {
  if (name === "all") return all;
  return name === "own" ? own(clients) : channels(Number(name.split(" ")[1]));
}

/** Returns how many of the events from `first` up to, and without, `end` each connection has to receive. */
export function expectedCounts({ reads, target }: Audience, clients: number, first: number, end: number): number[] {
  const sent = new Map<string, number>();
  for (let seq = first; seq < end; seq++) sent.set(target(seq), (sent.get(target(seq)) ?? 0) + 1);
  return Array.from({ length: clients }, (_, index) =>
    reads(index).reduce((sum, target) => sum + (sent.get(target) ?? 0), 0),
  );
}
