import { type FeedConnection, type FeedEvents, Gate, settled, type Watcher, type Wrapped } from "./connection.ts";

/** A client of ioredis 5 or 6. */
export interface IoredisClient {
  readonly status: string;
  call(command: string, ...args: string[]): Promise<unknown>;
  connect(): Promise<unknown>;
  duplicate(override?: Record<string, unknown>): IoredisClient;
  disconnect(reconnect?: boolean): void;
  subscribe(...channels: string[]): Promise<unknown>;
  unsubscribe(...channels: string[]): Promise<unknown>;
  on(event: string, listener: (...args: unknown[]) => void): unknown;
  off(event: string, listener: (...args: unknown[]) => void): unknown;
}

const ENDS = ["close", "end", "reconnecting"] as const;

export const wrapIoredis = (client: IoredisClient): Wrapped => ({
  get isReady() {
    return client.status === "ready";
  },
  send: ([command = "", ...args]) => client.call(command, ...args),
  watch(watcher: Watcher): () => void {
    const { ready, lost, failed } = watcher;
    client.on("ready", ready);
    for (const event of ENDS) client.on(event, lost);
    client.on("error", failed);
    if (client.status === "wait") client.connect().catch(failed);
    return () => {
      client.off("ready", ready);
      for (const event of ENDS) client.off(event, lost);
      client.off("error", failed);
    };
  },
  async feed(events: FeedEvents, own: boolean): Promise<FeedConnection> {
    // It is never used again once it was lost, so it must neither come back nor keep what it was asked meanwhile.
    const feed = own
      ? client
      : client.duplicate({
          lazyConnect: true,
          retryStrategy: null,
          reconnectOnError: null,
          autoResubscribe: false,
          autoResendUnfulfilledCommands: false,
          enableAutoPipelining: false,
        });
    // To disconnect what is closed would only leave a timer behind.
    const gate = new Gate(events, () => void (feed.status === "end" || feed.disconnect()));
    let cause: unknown;
    feed.on("error", (error: unknown) => {
      cause = error;
    });
    for (const event of ENDS) feed.on(event, () => gate.lost(cause ?? new Error("Feed connection closed.")));
    feed.on("message", (channel, text) => gate.message(String(channel), String(text)));
    if (feed.status === "wait") {
      await feed.connect().catch((error: unknown) => {
        gate.lost(cause ?? error);
        throw cause ?? error;
      });
    }
    return {
      subscribe: (channels) => feed.subscribe(...channels),
      unsubscribe: (channels) => settled(feed.unsubscribe(...channels)),
      close: () => gate.close(),
    };
  },
});
