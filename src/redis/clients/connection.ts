/** What happens to a feed connection. Nothing of it is called any more after `lost`, nor after the connection was closed. */
export interface FeedEvents {
  message(channel: string, text: string): void;
  /** It is over, for good; it is closed. */
  lost(error: unknown): void;
}

/** A connection of our own that messages come in through. One call of the two is under way at a time. */
export interface FeedConnection {
  subscribe(channels: readonly string[]): Promise<unknown>;
  unsubscribe(channels: readonly string[]): Promise<unknown>;
  close(): void;
}

/** Who is told of what happens to the caller's connection. */
export interface Watcher {
  /** Commands may be taken from now on. */
  ready(): void;
  /** Whatever was under way may be lost. */
  lost(): void;
  failed(error: unknown): void;
}

/** A client library's client, as the engine uses it. */
export interface Wrapped {
  /** Whether a command that is given now is sent at once. */
  readonly isReady: boolean;
  /** Sends a command. Numbers come as they are in a reply, strings as text. */
  send(command: readonly string[]): Promise<unknown>;
  /** Tells what happens to it; connects it if it never was. The answer takes all of that back. */
  watch(watcher: Watcher): () => void;
  /** Opens a connection with the same settings; `own` if this client itself is to be used, and closed in the end. */
  feed(events: FeedEvents, own: boolean): Promise<FeedConnection>;
}

/** What passes events on until it is closed. */
export class Gate {
  readonly #events: FeedEvents;
  readonly #close: () => void;
  #isOpen = true;

  constructor(events: FeedEvents, close: () => void) {
    this.#events = events;
    this.#close = close;
  }

  message(channel: string, text: string): void {
    if (this.#isOpen) this.#events.message(channel, text);
  }

  lost(error: unknown): void {
    if (!this.#isOpen) return;
    this.close();
    this.#events.lost(error);
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    try {
      this.#close();
    } catch {
      // It is closed.
    }
  }
}

/** A promise's end without its outcome. */
export const settled = (promise: unknown): Promise<void> =>
  Promise.resolve(promise).then(
    () => undefined,
    () => undefined,
  );
