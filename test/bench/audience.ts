/** Who reads what, and where events go. Found by its name, because processes and threads cannot be sent a function. */
export interface Audience {
  /** What the connection of this number asks for. */
  query(index: number): string;
  /** Where the event of this number goes. */
  target(seq: number): string;
  /** Of all targets those that the connection of this number reads. */
  reads(index: number): readonly string[];
}

/** How many channels {@link channels} spreads its clients over is part of the name: `channels 1000`. */
export type AudienceName = "all" | "own" | `channels ${number}`;

/** Everybody reads everything, and nobody has a name. */
const all: Audience = {
  query: () => "",
  target: () => "",
  reads: () => [""],
};

/** Everybody has an id and three channels, two of them shared and one own; of 100 events one is for one client. */
function own(clients: number): Audience {
  return {
    query: (index) => `?id=c${index}&channel=a&channel=b&channel=own-${index}`,
    target(seq) {
      const turn = Math.floor(seq / 100);
      if (seq % 100 !== 0) return seq % 2 === 0 ? "?channel=a" : "?channel=b";
      // Far from the last one, by id and by channel in turn.
      const client = (turn * 7919) % clients;
      return turn % 2 === 0 ? `?id=c${client}` : `?channel=own-${client}`;
    },
    reads: (index) => ["?channel=a", "?channel=b", `?channel=own-${index}`, `?id=c${index}`],
  };
}

/** So many channels, one for each client, with events in turn. */
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

/** How many of the events from number `first` to before `end` each of so many clients is to get. */
export function due({ reads, target }: Audience, clients: number, first: number, end: number): number[] {
  const sent = new Map<string, number>();
  for (let seq = first; seq < end; seq++) sent.set(target(seq), (sent.get(target(seq)) ?? 0) + 1);
  return Array.from({ length: clients }, (_, index) =>
    reads(index).reduce((sum, target) => sum + (sent.get(target) ?? 0), 0),
  );
}
