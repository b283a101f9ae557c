// Adapts a client of node-redis.
import {
  type ClientAdapter,
  type ClientListener,
  type FeedConnection,
  type FeedConnectionListener,
  FeedRelay,
} from "./connection.ts";

/** A client of node-redis 5 or 6, as `createClient` makes it. */
export interface NodeRedisClient {
  readonly isReady: boolean;
  readonly isOpen: boolean;
  sendCommand(args: readonly string[]): Promise<unknown>;
  connect(): Promise<unknown>;
  duplicate(overrides?: Record<string, unknown>): NodeRedisClient;
  destroy(): void;
  subscribe(channels: string[], listener: (message: string, channel: string) => void): Promise<unknown>;
  unsubscribe(channels: string[], listener: (message: string, channel: string) => void): Promise<unknown>;
  on(event: string, listener: (...args: unknown[]) => void): unknown;
  off(event: string, listener: (...args: unknown[]) => void): unknown;
}

const END_EVENTS = ["reconnecting", "end", "terminated"] as const;

export const adaptNodeRedis = (client: NodeRedisClient): ClientAdapter => ({
  get isReady() {
    return client.isReady;
  },
  send: (command) => client.sendCommand(command),
  watch(listener: ClientListener): () => void {
    const { onReady, onLost } = listener;
    // Every lost connection emits an error first, and some emit nothing else.
    const onError = (error: unknown): void => {
      if (!client.isReady) onLost();
      listener.onError(error);
    };
    client.on("ready", onReady);
    for (const event of END_EVENTS) client.on(event, onLost);
    client.on("error", onError);
    if (!client.isOpen) client.connect().catch(listener.onError);
    return () => {
      client.off("ready", onReady);
      for (const event of END_EVENTS) client.off(event, onLost);
      client.off("error", onError);
    };
  },
  async openFeed(listener: FeedConnectionListener, use): Promise<FeedConnection> {
    const feed = use === "itself" ? client : client.duplicate({ disableOfflineQueue: true });
    const relay = new FeedRelay(listener, () => feed.destroy());
    // The library would try to reconnect without end. The first error closes the client.
    feed.on("error", (error: unknown) => relay.lost(error));
    for (const event of END_EVENTS) feed.on(event, () => relay.lost(new Error("Feed connection closed.")));
    if (!feed.isOpen) await feed.connect();
    const onMessage = (text: string, channel: string): void => relay.message(channel, text);
    return {
      subscribe: (channels) => feed.subscribe([...channels], onMessage),
      unsubscribe: (channels) => feed.unsubscribe([...channels], onMessage),
      close: () => relay.close(),
    };
  },
});
