// A client in this process. It connects to a broker without a server, and reads its stream.
import type { Broker } from "../../broker/interface.ts";
import { textDecoder } from "../../event/sse-format.ts";
import { equal, until, withTimeout } from "./expectation.ts";

/** The request of a client for its stream. */
export interface ConnectOptions {
  readonly id?: string;
  readonly channels?: readonly string[];
  /** The id that an `EventSource` sends when it reconnects. */
  readonly lastEventId?: string | undefined;
}

/** An event as a client reads it. */
export interface ReceivedEvent {
  readonly id: string | undefined;
  readonly event: string | undefined;
  readonly data: string;
}

/** Parses one block of fanwire's own wire form: LF only, one space after each colon. Returns `undefined` for a block without data. */
function parseBlock(block: string): ReceivedEvent | undefined {
  const data: string[] = [];
  const fields: { id?: string; event?: string } = {};
  for (const line of block.split("\n")) {
    const [, name, value = ""] = /^([a-z]+): (.*)$/.exec(line) ?? [];
    if (name === "data") data.push(value);
    else if (name === "id" || name === "event") fields[name] = value;
  }
  return data.length > 0 ? { id: fields.id, event: fields.event, data: data.join("\n") } : undefined;
}

const isControl = ({ event }: ReceivedEvent): boolean => event?.startsWith("fanwire-") ?? false;

/** A client with one open stream, which it reads to the end. */
export class StreamClient {
  /** All events of the stream, including control events. */
  readonly events: ReceivedEvent[] = [];
  /** The id with which the client would reconnect. */
  lastEventId: string | undefined;
  readonly status: number;
  hasEnded = false;
  readonly #timeout: number;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  readonly #decoder = textDecoder();
  #rest = "";

  private constructor(response: Response, timeout: number) {
    this.#timeout = timeout;
    this.status = response.status;
    this.#reader = response.body?.getReader();
    void this.#readStream();
  }

  static async connect(
    broker: Broker,
    { id, channels = [], lastEventId }: ConnectOptions,
    timeout: number,
  ): Promise<StreamClient> {
    const url = new URL("https://fanwire.test/connect");
    if (id !== undefined) url.searchParams.set("id", id);
    for (const channel of channels) url.searchParams.append("channel", channel);
    const headers = {
      accept: "text/event-stream",
      ...(lastEventId === undefined ? {} : { "last-event-id": lastEventId }),
    };
    const response = await withTimeout(timeout, "connecting", broker.clientHandler(new Request(url, { headers })));
    return new StreamClient(response, timeout);
  }

  async #readStream(): Promise<void> {
    try {
      for (;;) {
        const part = await this.#reader?.read();
        if (!part || part.done) break;
        this.#parse(this.#decoder.decode(part.value, { stream: true }));
      }
    } catch {
      // The stream was errored, which ends it as well.
    }
    this.hasEnded = true;
  }

  #parse(text: string): void {
    const blocks = (this.#rest + text).split("\n\n");
    this.#rest = blocks.pop() ?? "";
    for (const block of blocks) {
      const event = parseBlock(block);
      if (!event) continue;
      this.events.push(event);
      if (event.id !== undefined) this.lastEventId = event.id;
    }
  }

  /** The events that were published. */
  get received(): readonly ReceivedEvent[] {
    return this.events.filter((event) => !isControl(event));
  }

  /** The data of the events that were published. */
  get data(): string[] {
    return this.received.map(({ data }) => data);
  }

  /** The data of each gap. */
  get gaps(): string[] {
    return this.events.filter(({ event }) => event === "fanwire-gap").map(({ data }) => data);
  }

  /** Waits for a control event. */
  waitForControl(name: "ready" | "gap" | "end"): Promise<ReceivedEvent> {
    return this.#waitFor(`fanwire-${name}`, ({ event }) => event === `fanwire-${name}`);
  }

  /** Waits for a published event with this data. */
  waitForData(data: string): Promise<ReceivedEvent> {
    return this.#waitFor(data, (event) => event.data === data && !isControl(event));
  }

  #waitFor(expected: string, isFound: (event: ReceivedEvent) => boolean): Promise<ReceivedEvent> {
    return until(
      this.#timeout,
      "a client",
      `to receive ${expected}`,
      () => this.events.find(isFound),
      () => ({ status: this.status, received: this.events }),
    );
  }

  /** Waits for the last of these events, and checks that the client received exactly these, in this order, and no gap. */
  async expectData(expected: readonly string[]): Promise<void> {
    const last = expected.at(-1);
    if (last !== undefined) await this.waitForData(last);
    equal("events that a client received", this.data, expected);
    equal("gaps that a client received", this.gaps, []);
  }

  /** Waits for the end of the stream. */
  async waitForEnd(): Promise<void> {
    await until(
      this.#timeout,
      "a client's stream",
      "to end",
      () => this.hasEnded,
      () => this.events,
    );
  }

  /** Leaves, as a client does that closes its connection. */
  async leave(): Promise<void> {
    await this.#reader?.cancel().catch(() => undefined);
  }
}
