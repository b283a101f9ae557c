// A client that reconnects with its last id, as an EventSource does, and remembers every item that it received.
import { createParser } from "eventsource-parser";

export interface ReceivedEvent {
  readonly type: string;
  readonly id: string | undefined;
  readonly data: string;
}

export class StreamReader {
  /** Items without `fanwire-ready` and `fanwire-end`, in the order of receipt. */
  readonly items: ReceivedEvent[] = [];
  /** Data of control events by their name. */
  readonly control: { readonly name: string; readonly data: Record<string, unknown> }[] = [];
  lastEventId = "";
  /** Answers of each attempt: a status, or 0 where there was no connection. */
  readonly statuses: number[] = [];
  readonly #url: string;
  readonly #abort = new AbortController();
  readonly #ended: Promise<void>;
  #wake: () => void = () => undefined;

  constructor(url: string, lastEventId = "") {
    this.#url = url;
    this.lastEventId = lastEventId;
    this.#ended = this.#run();
  }

  get events(): ReceivedEvent[] {
    return this.items.filter(({ type }) => type !== "fanwire-gap");
  }

  get gaps(): ReceivedEvent[] {
    return this.items.filter(({ type }) => type === "fanwire-gap");
  }

  async #run(): Promise<void> {
    while (!this.#abort.signal.aborted) {
      await this.#connect().catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async #connect(): Promise<void> {
    const headers = { accept: "text/event-stream", ...(this.lastEventId && { "last-event-id": this.lastEventId }) };
    const response = await fetch(this.#url, { headers, signal: this.#abort.signal }).catch(() => undefined);
    this.statuses.push(response?.status ?? 0);
    this.#wake();
    if (response?.status !== 200) {
      await response?.body?.cancel();
      return;
    }
    const parser = createParser({
      onEvent: ({ event = "message", id, data }) => {
        if (id !== undefined) this.lastEventId = id;
        if (event === "message" || event === "fanwire-gap") this.items.push({ type: event, id, data });
        else this.control.push({ name: event, data: JSON.parse(data) as Record<string, unknown> });
      },
    });
    const decoder = new TextDecoder();
    for await (const chunk of response.body ?? []) {
      parser.feed(decoder.decode(chunk, { stream: true }));
      this.#wake();
    }
  }

  /** Waits until `holds` returns true. */
  async until(holds: () => boolean): Promise<void> {
    while (!holds()) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, 50);
      });
    }
  }

  untilData(data: string): Promise<void> {
    return this.until(() => this.items.some((item) => item.data === data));
  }

  async close(): Promise<void> {
    this.#abort.abort();
    await this.#ended;
  }
}
