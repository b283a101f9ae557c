import { createParser, type EventSourceMessage } from "eventsource-parser";

/**
 * A client in the same process: the body of a `Response`, read when the test says so. To stall is not to read: nothing is
 * taken from the stream unless a method here waits for something.
 */
export class Connection {
  readonly response: Response;
  /** Every event read, fanwire's own included. */
  readonly events: EventSourceMessage[] = [];
  /** Every chunk read, as it came. */
  readonly chunks: Uint8Array[] = [];
  comments = 0;
  /** Each reconnection time told. */
  readonly retries: number[] = [];
  /** What an EventSource that saw the events taken so far would send as `Last-Event-ID`. */
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
    if (response.status !== 200 || !response.body) throw new Error(`connecting: the answer is ${response.status}`);
    this.response = response;
    this.#abort = abort;
    this.#reader = response.body.getReader() as ReadableStreamDefaultReader<Uint8Array>;
  }

  get clientId(): string {
    return decodeURIComponent(this.response.headers.get("fanwire-client-id") ?? "");
  }

  /** The events that are not fanwire's own, as far as they were read. */
  get data(): string[] {
    return this.events.filter(isData).map(({ data }) => data);
  }

  /** fanwire's own events of this name, as far as they were read. */
  control(name: string): EventSourceMessage[] {
    return this.events.filter(({ event }) => event === `fanwire-${name}`);
  }

  /** Reads one chunk; `false` at the end of the stream. Rejects when the stream was errored. */
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

  /** The next event that was not taken yet, fanwire's own included. */
  async next(): Promise<EventSourceMessage> {
    for (;;) {
      const event = this.events[this.#taken];
      if (event) {
        this.#taken++;
        if (event.id !== undefined) this.lastEventId = event.id;
        return event;
      }
      if (!(await this.read())) throw new Error(`reading: the stream ended after ${this.events.length} events`);
    }
  }

  /** The next event that is not fanwire's own. */
  async nextData(): Promise<EventSourceMessage> {
    return this.until(isData);
  }

  /** Takes events until this one, which it gives. */
  async until(holds: (event: EventSourceMessage) => boolean): Promise<EventSourceMessage> {
    for (;;) {
      const event = await this.next();
      if (holds(event)) return event;
    }
  }

  /** The next event of fanwire's own of this name. */
  untilControl(name: string): Promise<EventSourceMessage> {
    return this.until(({ event }) => event === `fanwire-${name}`);
  }

  /** Takes events until the one with this data. */
  untilData(data: string): Promise<EventSourceMessage> {
    return this.until((event) => isData(event) && event.data === data);
  }

  /** Reads to the end of the stream: how it ended. */
  async ended(): Promise<"closed" | "errored"> {
    try {
      while (await this.read());
      return "closed";
    } catch {
      return "errored";
    }
  }

  /** Leaves as most runtimes tell it: the stream is cancelled. */
  async leave(): Promise<void> {
    await this.#reader.cancel().catch(() => undefined);
  }

  /** Leaves as some runtimes tell it: the request's signal fires. */
  abort(): void {
    this.#abort.abort();
  }
}

export const isData = ({ event }: EventSourceMessage): boolean => !event?.startsWith("fanwire-");

/** What a gap says. */
export interface GapData {
  readonly channels: readonly string[];
  readonly after: string | null;
  readonly through: string;
}

export const gapOf = (event: EventSourceMessage): GapData => JSON.parse(event.data) as GapData;

/** The seq of an id, as the tests may know it. */
export function seqOf(id: string | null | undefined): number {
  const digits = /-(\d+)$/.exec(id ?? "")?.[1];
  if (digits === undefined) throw new Error(`reading an id: "${id}" has no seq`);
  return Number(digits);
}
