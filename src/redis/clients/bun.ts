import { every, now } from "../../base/runtime.ts";
import { type FeedConnection, type FeedEvents, Gate, type Watcher, type Wrapped } from "./connection.ts";

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

/** Milliseconds between two looks at whether a client is connected: its events have room for one listener, which is the caller's. */
const LOOK = 50;
/** Milliseconds between two attempts to connect. Bun gives up after some, and after an idle timeout makes none. */
const REDIAL = 2_000;

export const wrapBun = (client: BunClient): Wrapped => ({
  get isReady() {
    return client.connected;
  },
  send: ([command = "", ...args]) => client.send(command, args),
  watch(watcher: Watcher): () => void {
    let was = client.connected;
    let isDialling = false;
    let dialled = now() - REDIAL;
    const dial = (): void => {
      if (isDialling || now() - dialled < REDIAL) return;
      isDialling = true;
      dialled = now();
      const over = (): void => {
        isDialling = false;
      };
      client.connect().then(over, (error: unknown) => {
        over();
        watcher.failed(error);
      });
    };
    const look = (): void => {
      const { connected } = client;
      if (!connected) dial();
      if (connected === was) return;
      was = connected;
      if (connected) watcher.ready();
      else watcher.lost();
    };
    look();
    return every(LOOK, look);
  },
  async feed(events: FeedEvents, own: boolean): Promise<FeedConnection> {
    const feed = own ? client : await client.duplicate();
    let stop = (): void => undefined;
    const gate = new Gate(events, () => {
      stop();
      feed.onconnect = null;
      feed.onclose = null;
      feed.close();
    });
    if (!feed.connected) await feed.connect();
    // Bun connects again by itself, with no subscription: that is a feed lost as well.
    const lost = (): void => gate.lost(new Error("Feed connection closed."));
    feed.onconnect = lost;
    feed.onclose = lost;
    stop = every(LOOK, () => {
      if (!feed.connected) lost();
    });
    const listener = (text: string, channel: string): void => gate.message(channel, text);
    return {
      // One channel a call: Bun 1.4 takes the answer for each of several channels for that to a whole call, and later calls for answered too early.
      subscribe: (channels) => Promise.all(channels.map((channel) => feed.subscribe(channel, listener))),
      unsubscribe: (channels) => Promise.all(channels.map((channel) => feed.unsubscribe(channel))),
      close: () => gate.close(),
    };
  },
});
