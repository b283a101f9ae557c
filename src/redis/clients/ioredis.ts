// Adapts a client of ioredis.
import {
  type ClientAdapter,
  type ClientListener,
  type FeedConnection,
  type FeedConnectionListener,
  FeedRelay,
  settled,
} from "./connection.ts";

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

const END_EVENTS = ["close", "end", "reconnecting"] as const;

export const adaptIoredis = (client: IoredisClient): ClientAdapter => ({
  get isReady() {
    return client.status === "ready";
  },
  send: ([command = "", ...args]) => client.call(command, ...args),
  watch({ onReady, onLost, onError }: ClientListener): () => void {
    client.on("ready", onReady);
    for (const event of END_EVENTS) client.on(event, onLost);
    client.on("error", onError);
    if (client.status === "wait") client.connect().catch(onError);
    return () => {
      client.off("ready", onReady);
      for (const event of END_EVENTS) client.off(event, onLost);
      client.off("error", onError);
    };
  },
  async openFeed(listener: FeedConnectionListener, use): Promise<FeedConnection> {
    // A feed that was lost is never used again. So it must not reconnect, and must not keep commands for later.
    const feed =
      use === "itself"
        ? client
        : client.duplicate({
            lazyConnect: true,
            retryStrategy: null,
            reconnectOnError: null,
            autoResubscribe: false,
            autoResendUnfulfilledCommands: false,
            enableAutoPipelining: false,
          });
    // `disconnect` on a client that is closed would leave a timer behind.
    const relay = new FeedRelay(listener, () => void (feed.status === "end" || feed.disconnect()));
    let cause: unknown;
    feed.on("error", (error: unknown) => {
      cause = error;
    });
    for (const event of END_EVENTS) feed.on(event, () => relay.lost(cause ?? new Error("Feed connection closed.")));
    feed.on("message", (channel, text) => relay.message(String(channel), String(text)));
    if (feed.status === "wait") {
      await feed.connect().catch((error: unknown) => {
        relay.lost(cause ?? error);
        throw cause ?? error;
      });
    }
    return {
      subscribe: (channels) => feed.subscribe(...channels),
      unsubscribe: (channels) => settled(feed.unsubscribe(...channels)),
      close: () => relay.close(),
    };
  },
});
