// A client in the same process. It reads the body of a `Response` only when the test says so.
import { createParser, type EventSourceMessage } from "eventsource-parser";

/** The client's side of a connection. It is blocked by default: it reads from the stream only while one of its methods waits. */
export class Connection {
  readonly response: Response;
  /** All events that were read, with control events. */
  readonly events: EventSourceMessage[] = [];
  /** All chunks that were read. */
  readonly chunks: Uint8Array[] = [];
  comments = 0;
  /** All `retry:` values that were read, in milliseconds. */
  readonly retries: number[] = [];
  /** The `Last-Event-ID` that an EventSource would send after the events that were taken so far. */
  lastEventId: string | undefined;

  readonly #abort: AbortController;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  readonly #parser = createParser({
    onEvent: (event) => {
      this.events.push(event);
    },
    onComment: () => {
      this.comments++;
    },
    onRetry: (ms) => {
      this.retries.push(ms);
    },
  });
  #reading: Promise<boolean> | undefined;
  #taken = 0;

  constructor(response: Response, abort: AbortController) {
    if (response.status !== 200 || !response.body)
      throw new Error(`Connecting a client: the status is ${response.status}, and not 200.`);
    this.response = response;
    this.#abort = abort;
    this.#reader = response.body.getReader() as ReadableStreamDefaultReader<Uint8Array>;
  }

  get clientId(): string {
    return decodeURIComponent(this.response.headers.get("fanwire-client-id") ?? "");
  }

  /** The data of all events that were read, without control events. */
  get data(): string[] {
    return this.events.filter(isData).map(({ data }) => data);
  }

  /** Returns the control events of a name that were read. `name` is without `fanwire-`. */
  control(name: string): EventSourceMessage[] {
    return this.events.filter(({ event }) => event === `fanwire-${name}`);
  }

  /** Reads one chunk. Resolves with `false` at the end of the stream. Rejects if the stream errored. */
  read(): Promise<boolean> {
    this.#reading ??= this.#reader
      .read()
      .then(({ done, value }) => {
        if (done || !value) return false;
        this.chunks.push(value);
        this.#parser.feed(this.#decoder.decode(value, { stream: true }));
        return true;
      })
      .finally(() => {
        this.#reading = undefined;
      });
    return this.#reading;
  }

  /** Takes the next event, which may be a control event. */
  async next(): Promise<EventSourceMessage> {
    for (;;) {
      const event = this.events[this.#taken];
      if (event) {
        this.#taken++;
        if (event.id !== undefined) this.lastEventId = event.id;
        return event;
      }
      if (!(await this.read()))
        throw new Error(`Reading the next event: the stream ended after ${this.events.length} events.`);
    }
  }

  /** Takes events through the next one that is not a control event, and returns that. */
  async nextData(): Promise<EventSourceMessage> {
    return this.until(isData);
  }

  /** Takes events through the next one for which `matches` is true, and returns that. */
  async until(matches: (event: EventSourceMessage) => boolean): Promise<EventSourceMessage> {
    for (;;) {
      const event = await this.next();
      if (matches(event)) return event;
    }
  }

  /** Takes events through the next control event of a name, and returns that. `name` is without `fanwire-`. */
  untilControl(name: string): Promise<EventSourceMessage> {
    return this.until(({ event }) => event === `fanwire-${name}`);
  }

  /** Takes events through the next one with this data, and returns that. */
  untilData(data: string): Promise<EventSourceMessage> {
    return this.until((event) => isData(event) && event.data === data);
  }

  /** Takes events through the next one with this data, and returns the data of all events that were read. */
  async readThrough(data: string): Promise<string[]> {
    await this.untilData(data);
    return this.data;
  }

  /** Reads to the end of the stream. Returns how it ended. */
  async ended(): Promise<"closed" | "errored"> {
    try {
      while (await this.read());
      return "closed";
    } catch {
      return "errored";
    }
  }

  /** Leaves as most runtimes report it: by cancelling the stream. */
  async leave(): Promise<void> {
    await this.#reader.cancel().catch(() => undefined);
  }

  /** Leaves as some runtimes report it: by the request's signal. */
  abort(): void {
    this.#abort.abort();
  }
}

/** Whether an event is not a control event. */
export const isData = ({ event }: EventSourceMessage): boolean => !event?.startsWith("fanwire-");

/** Returns the data of an event, or the name of a control event without `fanwire-`. */
export const labelOf = (event: EventSourceMessage): string =>
  isData(event) ? event.data : (event.event?.slice("fanwire-".length) ?? "");

/** Returns the label of each event that was read, followed by `showId` of its id if it has one. */
export const seen = ({ events }: Connection, showId = (_id: string): string => "+id"): string[] =>
  events.map((event) => (event.id === undefined ? labelOf(event) : `${labelOf(event)} ${showId(event.id)}`));

/** The data of a `fanwire-gap` event. */
export interface GapData {
  readonly channels: readonly string[];
  readonly after: string | null;
  readonly through: string;
}

export const gapOf = (event: EventSourceMessage): GapData => JSON.parse(event.data) as GapData;

/** The data of a `fanwire-channels` event. */
interface ChannelsData {
  readonly channels: readonly string[];
  readonly added: readonly string[];
  readonly removed: readonly string[];
  readonly reason?: string;
}

/** Returns the data of each `fanwire-channels` event that was read. */
export const changesOf = (client: Connection): ChannelsData[] =>
  client.control("channels").map(({ data }) => JSON.parse(data) as ChannelsData);

/** Returns the secret of a client's stream, which is in its `fanwire-ready`. */
export const secretOf = (client: Connection): string =>
  (JSON.parse(client.control("ready")[0]?.data ?? "{}") as { secret: string }).secret;

/** Returns the `seq` of an id. Only tests may take an id apart. */
export function seqOf(id: string | null | undefined): number {
  const digits = /-(\d+)$/.exec(id ?? "")?.[1];
  if (digits === undefined) throw new Error(`Reading the id "${id}": it has no seq.`);
  return Number(digits);
}
