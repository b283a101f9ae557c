import type { Broker } from "../../broker/broker.ts";
import { textDecoder } from "../../event/sse-format.ts";
import { equal, inTime, until } from "./expectation.ts";

/** How a client asks for its stream. */
export interface Wish {
  readonly id?: string;
  readonly channels?: readonly string[];
  /** As an `EventSource` sends it that comes back. */
  readonly lastEventId?: string | undefined;
}

/** An event as a client reads it. */
export interface Told {
  readonly id: string | undefined;
  readonly event: string | undefined;
  readonly data: string;
}

/** Reads one block of what fanwire writes: LF only, one space after each colon. */
function parse(block: string): Told | undefined {
  const data: string[] = [];
  const fields: { id?: string; event?: string } = {};
  for (const line of block.split("\n")) {
    const [, name, value = ""] = /^([a-z]+): (.*)$/.exec(line) ?? [];
    if (name === "data") data.push(value);
    else if (name === "id" || name === "event") fields[name] = value;
  }
  return data.length > 0 ? { id: fields.id, event: fields.event, data: data.join("\n") } : undefined;
}

/** A client in this process that reads whatever it is sent. */
export class Client {
  /** Everything it read, the broker's own events included. */
  readonly events: Told[] = [];
  /** What it would come back with. */
  lastEventId: string | undefined;
  readonly status: number;
  hasEnded = false;
  readonly #patience: number;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  readonly #decoder = textDecoder();
  #rest = "";

  private constructor(response: Response, patience: number) {
    this.#patience = patience;
    this.status = response.status;
    this.#reader = response.body?.getReader();
    void this.#follow();
  }

  static async connect(broker: Broker, { id, channels = [], lastEventId }: Wish, patience: number): Promise<Client> {
    const url = new URL("https://fanwire.test/connect");
    if (id !== undefined) url.searchParams.set("id", id);
    for (const channel of channels) url.searchParams.append("channel", channel);
    const headers = {
      accept: "text/event-stream",
      ...(lastEventId === undefined ? {} : { "last-event-id": lastEventId }),
    };
    const response = await inTime(patience, "connecting", broker.clientHandler(new Request(url, { headers })));
    return new Client(response, patience);
  }

  async #follow(): Promise<void> {
    try {
      for (;;) {
        const part = await this.#reader?.read();
        if (!part || part.done) break;
        this.#take(this.#decoder.decode(part.value, { stream: true }));
      }
    } catch {
      // The stream was errored, which ends it as well.
    }
    this.hasEnded = true;
  }

  #take(text: string): void {
    const blocks = (this.#rest + text).split("\n\n");
    this.#rest = blocks.pop() ?? "";
    for (const block of blocks) {
      const event = parse(block);
      if (!event) continue;
      this.events.push(event);
      if (event.id !== undefined) this.lastEventId = event.id;
    }
  }

  /** The events that are not the broker's own. */
  get received(): readonly Told[] {
    return this.events.filter(({ event }) => !event?.startsWith("fanwire-"));
  }

  get data(): string[] {
    return this.received.map(({ data }) => data);
  }

  /** What it was told that it lost. */
  get gaps(): string[] {
    return this.events.filter(({ event }) => event === "fanwire-gap").map(({ data }) => data);
  }

  /** Waits for an event of the broker's own. */
  control(name: "ready" | "gap" | "end"): Promise<Told> {
    return this.#until(`fanwire-${name}`, ({ event }) => event === `fanwire-${name}`);
  }

  /** Waits for the event with this data. */
  hears(data: string): Promise<Told> {
    return this.#until(data, (told) => told.data === data && !told.event?.startsWith("fanwire-"));
  }

  #until(expected: string, holds: (event: Told) => boolean): Promise<Told> {
    const look = (): Told | undefined => this.events.find(holds);
    return until(this.#patience, "a client", `to read ${expected}`, look, () => ({
      status: this.status,
      read: this.events,
    }));
  }

  /** Waits for an event, and checks that these are all up to it, in this order, and that nothing was said to be lost. */
  async hasRead(expected: readonly string[]): Promise<void> {
    const last = expected.at(-1);
    if (last !== undefined) await this.hears(last);
    equal("what a client read", this.data, expected);
    equal("gaps that a client was told of", this.gaps, []);
  }

  /** Waits until its stream is over. */
  async ended(): Promise<void> {
    await until(
      this.#patience,
      "a client's stream",
      "to end",
      () => this.hasEnded,
      () => this.events,
    );
  }

  async leave(): Promise<void> {
    await this.#reader?.cancel().catch(() => undefined);
  }
}
