// A client library's client, as the engine uses it. Each library has an adapter.

/** Receives what happens to a feed connection. Nothing is called after `onLost`, nor after the connection was closed. */
export interface FeedConnectionListener {
  onMessage(channel: string, text: string): void;
  /** The connection was lost, and is closed for good. */
  onLost(error: unknown): void;
}

/** A connection of the engine's own, through which messages arrive. Only one call of `subscribe` or `unsubscribe` is under way at a time. */
export interface FeedConnection {
  subscribe(channels: readonly string[]): Promise<unknown>;
  unsubscribe(channels: readonly string[]): Promise<unknown>;
  close(): void;
}

/** Receives what happens to the application's client. */
export interface ClientListener {
  /** Commands can be sent from now on. */
  onReady(): void;
  /** The connection was lost: any command that is under way may be lost. */
  onLost(): void;
  onError(error: unknown): void;
}

/** A client of any library. */
export interface ClientAdapter {
  /** Whether a command that is given now is sent at once. May be true before `onReady` is called. */
  readonly isReady: boolean;
  /** Sends a command. A number in a reply stays a number, a string becomes text. */
  send(command: readonly string[]): Promise<unknown>;
  /** Reports what happens to the client, and connects it if it never was connected. Returns a function that ends the reports. */
  watch(listener: ClientListener): () => void;
  /** Opens a feed connection: a duplicate of this client, or with `"itself"` this very client, which is closed in the end. */
  openFeed(listener: FeedConnectionListener, use: "duplicate" | "itself"): Promise<FeedConnection>;
}

/** Passes on what happens to a feed connection until that is lost or closed. */
export class FeedRelay {
  readonly #listener: FeedConnectionListener;
  readonly #closeConnection: () => void;
  #isOpen = true;

  constructor(listener: FeedConnectionListener, closeConnection: () => void) {
    this.#listener = listener;
    this.#closeConnection = closeConnection;
  }

  message(channel: string, text: string): void {
    if (this.#isOpen) this.#listener.onMessage(channel, text);
  }

  lost(error: unknown): void {
    if (!this.#isOpen) return;
    this.close();
    this.#listener.onLost(error);
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    try {
      this.#closeConnection();
    } catch {
      // The connection is closed already.
    }
  }
}

/** Resolves when a promise is settled, whatever its outcome. */
export const settled = (promise: unknown): Promise<void> =>
  Promise.resolve(promise).then(
    () => undefined,
    () => undefined,
  );
