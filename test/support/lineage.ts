import type { Broker } from "../../src/index.ts";
import { Connection, gapOf, isData, seqOf } from "./connection.ts";
import type { Lineage, Seen } from "./oracle.ts";
import { clientRequest } from "./scene.ts";

/** How a reader begins when it has no id yet. */
export type Beginning = "live" | "earliest" | "foreign";

/** How many events were published until now: that the call was made of, and that the promise resolved of. */
interface Counts {
  readonly called: number;
  readonly done: number;
}

/** One connection of a reader, of whichever kind: chunks come when they are asked for, and are seen when the reader looks. */
interface Link {
  /** What came and was not seen yet. A connection that breaks takes it along. */
  readonly came: Arrival[];
  /** Nothing comes any more. */
  isOver?: boolean;
  /** Asks for so many chunks more. */
  want(chunks: number): void;
  drop(): Promise<void>;
}

/** Something that came: what it moves the reader's id to, and what is seen of it. */
interface Arrival {
  readonly id: string | undefined;
  readonly seen?: Seen;
}

/**
 * A reader over all of its connections. Like an EventSource it knows nothing but the last id it saw, and comes back with that.
 */
export class LineageReader implements Lineage {
  readonly channels: readonly string[];
  readonly seen: Seen[] = [];
  start = 0;
  floor = 0;
  /** Where it connects next. */
  broker: Broker;
  /** Where it was connected last. */
  home: Broker;
  /** Where an id is in the order of all that was published. */
  place: (id: string) => string = (id) => id;
  readonly #make: (lastEventId: string | undefined) => Promise<Link>;
  readonly #beginning: Beginning;
  readonly #published: () => Counts;
  #lastEventId: string | undefined;
  #link: Link | undefined;

  private constructor(
    broker: Broker,
    channels: readonly string[],
    beginning: Beginning,
    published: () => Counts,
    make: (reader: LineageReader, lastEventId: string | undefined) => Promise<Link>,
  ) {
    this.broker = this.home = broker;
    this.channels = channels;
    this.#beginning = beginning;
    this.#published = published;
    this.#make = (lastEventId) => make(this, lastEventId);
  }

  /** A reader over `clientHandler`. */
  static client(
    broker: Broker,
    id: string,
    channels: readonly string[],
    beginning: Beginning,
    published: () => Counts,
  ): LineageReader {
    const all = ["fanwire-common", inboxName(id), ...channels];
    return new LineageReader(broker, all, beginning, published, async (reader, lastEventId) => {
      const wish = { id, channel: channels, query: beginning === "earliest" ? { from: "earliest" } : {} };
      const request = clientRequest(lastEventId === undefined ? wish : { ...wish, lastEventId });
      return clientLink(new Connection(await reader.broker.clientHandler(request), new AbortController()), id);
    });
  }

  /** A reader over `listen()`. */
  static listener(
    broker: Broker,
    channels: readonly string[],
    beginning: Beginning,
    published: () => Counts,
  ): LineageReader {
    const all = channels.length > 0 ? channels : ["fanwire-common"];
    return new LineageReader(broker, all, beginning, published, async (reader, lastEventId) =>
      listenerLink(
        reader.broker.listen({
          ...(channels.length > 0 ? { channel: channels } : {}),
          lastEventId,
          ...(beginning === "earliest" ? { from: "earliest" } : {}),
        }),
      ),
    );
  }

  async connect(): Promise<void> {
    if (this.#link) return;
    const { broker } = this;
    const { called, done } = this.#published();
    // Without an id it has seen nothing, so it has no claim to what was published until now.
    if (this.#lastEventId === undefined) {
      if (this.#beginning !== "foreign") this.start = called;
      if (this.#beginning === "live") this.floor = done;
    }
    this.#link = await this.#make(this.#lastEventId ?? (this.#beginning === "foreign" ? "elsewhere-7" : undefined));
    this.home = broker;
  }

  get isConnected(): boolean {
    return this.#link !== undefined && this.#link.isOver !== true;
  }

  want(chunks: number): void {
    this.#link?.want(chunks);
  }

  /** Looks at so many of the events that came. */
  look(events: number): void {
    for (const { id, seen } of this.#link?.came.splice(0, events) ?? []) {
      // A live reader's claim begins at the first id it is told, which may be later than the call.
      if (this.#lastEventId === undefined && id !== undefined && this.#beginning === "live") {
        if (!seen) this.start = this.floor = seqOf(this.place(id));
      }
      if (id !== undefined) this.#lastEventId = id;
      if (seen) this.seen.push(this.#placed(seen));
    }
  }

  #placed(seen: Seen): Seen {
    const id = this.place(seen.id);
    if (seen.type === "event") return { ...seen, id };
    return {
      ...seen,
      id,
      after: seen.after === null ? null : this.place(seen.after),
      through: this.place(seen.through),
    };
  }

  async drop(): Promise<void> {
    const link = this.#link;
    this.#link = undefined;
    await link?.drop();
  }
}

/** The name of an inbox where those of several recipients have to be told apart. */
export const inboxName = (id: string): string => `fanwire-inbox:${id}`;

function clientLink(connection: Connection, id: string): Link {
  const came: Arrival[] = [];
  let wanted = 0;
  let read = 0;
  let reading = false;
  const readOn = async (): Promise<void> => {
    if (reading) return;
    reading = true;
    while (wanted > 0) {
      if (!(await connection.read().catch(() => false))) {
        link.isOver = true;
        break;
      }
      wanted--;
      for (const event of connection.events.slice(read)) {
        read++;
        if (isData(event)) {
          came.push({ id: event.id, seen: { type: "event", id: event.id ?? "", data: event.data } });
        } else if (event.event === "fanwire-gap") {
          const gap = gapOf(event);
          const channels = gap.channels.map((name) => (name === "fanwire-inbox" ? inboxName(id) : name));
          came.push({ id: event.id, seen: { type: "gap", id: event.id ?? "", ...gap, channels } });
        } else {
          came.push({ id: event.id });
        }
      }
    }
    reading = false;
  };
  const link: Link = {
    came,
    want(chunks) {
      wanted += chunks;
      void readOn();
    },
    drop: () => connection.leave(),
  };
  return link;
}

function listenerLink(listener: ReturnType<Broker["listen"]>): Link {
  const came: Arrival[] = [];
  return {
    came,
    want(chunks) {
      for (let chunk = 0; chunk < chunks; chunk++) {
        void listener.next().then(({ done, value }) => {
          if (done) return;
          const { id } = value;
          came.push({ id, seen: value.type === "gap" ? value : { type: "event", id, data: value.data } });
        });
      }
    },
    async drop() {
      await listener.return?.();
    },
  };
}
