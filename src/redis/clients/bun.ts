// Adapts the Redis client of Bun.
import { every, now } from "../../base/runtime.ts";
import {
  type ClientAdapter,
  type ClientListener,
  type FeedConnection,
  type FeedConnectionListener,
  FeedRelay,
} from "./connection.ts";

/** A client of Bun, such as `Bun.redis`. */
export interface BunClient {
  readonly connected: boolean;
  onconnect: ((this: never) => void) | null;
  onclose: ((this: never, error: Error) => void) | null;
  send(command: string, args: string[]): Promise<unknown>;
  connect(): Promise<unknown>;
  duplicate(): Promise<BunClient>;
  close(): void;
  subscribe(channel: string, listener: (message: string, channel: string) => void): Promise<unknown>;
  unsubscribe(channel: string): Promise<unknown>;
}

/** The interval at which `connected` is checked. A client has room for one event listener, which belongs to the application. */
const POLL_MS = 50;
/** The shortest interval between two attempts to connect. Bun gives up after some attempts, and makes none after an idle timeout. */
const CONNECT_INTERVAL_MS = 2_000;

export const adaptBun = (client: BunClient): ClientAdapter => ({
  get isReady() {
    return client.connected;
  },
  send: ([command = "", ...args]) => client.send(command, args),
  watch(listener: ClientListener): () => void {
    let wasConnected = client.connected;
    let isConnecting = false;
    let lastAttempt = now() - CONNECT_INTERVAL_MS;
    const connect = (): void => {
      if (isConnecting || now() - lastAttempt < CONNECT_INTERVAL_MS) return;
      isConnecting = true;
      lastAttempt = now();
      const onSettled = (): void => {
        isConnecting = false;
        poll();
      };
      client.connect().then(onSettled, (error: unknown) => {
        onSettled();
        listener.onError(error);
      });
    };
    const poll = (): void => {
      const { connected } = client;
      if (!connected) connect();
      if (connected === wasConnected) return;
      wasConnected = connected;
      if (connected) listener.onReady();
      else listener.onLost();
    };
    poll();
    return every(POLL_MS, poll);
  },
  async openFeed(listener: FeedConnectionListener, use): Promise<FeedConnection> {
    const feed = use === "itself" ? client : await client.duplicate();
    let stopPolling = (): void => undefined;
    const relay = new FeedRelay(listener, () => {
      stopPolling();
      feed.onconnect = null;
      feed.onclose = null;
      feed.close();
    });
    if (!feed.connected) await feed.connect();
    // Bun reconnects by itself, without subscriptions. So a new connection, too, means that the feed was lost.
    const onLost = (): void => relay.lost(new Error("Feed connection closed."));
    feed.onconnect = onLost;
    feed.onclose = onLost;
    stopPolling = every(POLL_MS, () => {
      if (!feed.connected) onLost();
    });
    const onMessage = (text: string, channel: string): void => relay.message(channel, text);
    return {
      // One channel per call: Bun 1.4 takes the reply for each of several channels for the reply to the whole call, and then resolves later
      // calls too early.
      subscribe: (channels) => Promise.all(channels.map((channel) => feed.subscribe(channel, onMessage))),
      unsubscribe: (channels) => Promise.all(channels.map((channel) => feed.unsubscribe(channel))),
      close: () => relay.close(),
    };
  },
});
