import { type FeedConnection, type FeedEvents, Gate, type Watcher, type Wrapped } from "./connection.ts";

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

const ENDS = ["reconnecting", "end", "terminated"] as const;

export const wrapNodeRedis = (client: NodeRedisClient): Wrapped => ({
  get isReady() {
    return client.isReady;
  },
  send: (command) => client.sendCommand(command),
  watch(watcher: Watcher): () => void {
    const { ready, lost } = watcher;
    // Every loss of a connection is an error first, and some are never told otherwise.
    const failed = (error: unknown): void => {
      if (!client.isReady) lost();
      watcher.failed(error);
    };
    client.on("ready", ready);
    for (const event of ENDS) client.on(event, lost);
    client.on("error", failed);
    if (!client.isOpen) client.connect().catch(watcher.failed);
    return () => {
      client.off("ready", ready);
      for (const event of ENDS) client.off(event, lost);
      client.off("error", failed);
    };
  },
  async feed(events: FeedEvents, own: boolean): Promise<FeedConnection> {
    const feed = own ? client : client.duplicate({ disableOfflineQueue: true });
    const gate = new Gate(events, () => feed.destroy());
    // The library would try for ever to connect again; the first error closes it.
    feed.on("error", (error: unknown) => gate.lost(error));
    for (const event of ENDS) feed.on(event, () => gate.lost(new Error("Feed connection closed.")));
    if (!feed.isOpen) await feed.connect();
    const listener = (text: string, channel: string): void => gate.message(channel, text);
    return {
      subscribe: (channels) => feed.subscribe([...channels], listener),
      unsubscribe: (channels) => feed.unsubscribe([...channels], listener),
      close: () => gate.close(),
    };
  },
});
