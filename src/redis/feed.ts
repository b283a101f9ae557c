// The connection through which events, commands and checkpoints arrive.
import { jitter } from "../base/random.ts";
import { after } from "../base/runtime.ts";
import type { FeedConnection, FeedConnectionListener } from "./clients/connection.ts";
import { engineDown } from "./errors.ts";

/** The delay before the feed is connected again. It doubles with each failure in a row. */
const MIN_RETRY_MS = 50;
const MAX_RETRY_MS = 2_000;
/** Channels in one command. A server or a library refuses a command that is too long. */
const CHANNELS_PER_CALL = 1_000;

/** Receives what happens on the feed. */
export interface FeedListener {
  onMessage(channel: string, text: string): void;
  onFeed(isConnected: boolean): void;
  onError(error: unknown): void;
}

/** A call of `subscribe` or `unsubscribe` that is not answered yet. */
interface Request {
  readonly type: "subscribe" | "unsubscribe";
  readonly channels: readonly string[];
  resolve(): void;
  reject(error: unknown): void;
}

/**
 * Keeps a feed connected. A connection that was lost is never used again: a new one is opened, after a delay that grows.
 *
 * Requests are sent one at a time, with consecutive requests of one type together. A client library that is asked to subscribe to a channel
 * which it is about to leave may do neither.
 */
export class Feed {
  readonly #open: (listener: FeedConnectionListener) => Promise<FeedConnection>;
  readonly #processChannels: readonly string[];
  readonly #timeoutMs: number;
  readonly #listener: FeedListener;
  #connection: FeedConnection | undefined;
  #isConnected = false;
  #isClosed = false;
  /** Incremented with every connection, so that late calls of an old one are recognized. */
  #generation = 0;
  #retryMs = MIN_RETRY_MS;
  #cancelTimer: (() => void) | undefined;
  #queue: Request[] = [];
  #inFlight: readonly Request[] = [];

  /** `processChannels` are the channels that this process always needs. The feed counts as connected once they are subscribed. */
  constructor(
    open: (listener: FeedConnectionListener) => Promise<FeedConnection>,
    processChannels: readonly string[],
    timeoutMs: number,
    listener: FeedListener,
  ) {
    this.#open = open;
    this.#processChannels = processChannels;
    this.#timeoutMs = timeoutMs;
    this.#listener = listener;
    this.#connect();
  }

  /** Rejects with `engine-down` while the feed is not connected, and when it is lost. */
  subscribe(channels: readonly string[]): Promise<void> {
    return this.#request("subscribe", channels);
  }

  /** Rejects as `subscribe` does. */
  unsubscribe(channels: readonly string[]): Promise<void> {
    return this.#request("unsubscribe", channels);
  }

  /** Replaces the connection. */
  renew(): void {
    if (this.#isConnected) this.#onLost(this.#generation, undefined);
  }

  close(): void {
    this.#isClosed = true;
    this.#disconnect(undefined);
  }

  #connect(): void {
    const generation = ++this.#generation;
    // A connection that takes too long is given up. If it is opened after that, it is closed at once.
    this.#startTimer(generation, "Redis feed not connected in time.");
    this.#establish(generation).catch((error: unknown) => this.#onLost(generation, error));
  }

  async #establish(generation: number): Promise<void> {
    const connection = await this.#open({
      onMessage: (channel, text) => {
        if (generation === this.#generation && this.#isConnected) this.#listener.onMessage(channel, text);
      },
      onLost: (error) => this.#onLost(generation, error),
    });
    if (generation !== this.#generation || this.#isClosed) return connection.close();
    this.#connection = connection;
    await connection.subscribe(this.#processChannels);
    if (generation !== this.#generation) return;
    this.#stopTimer();
    this.#retryMs = MIN_RETRY_MS;
    this.#isConnected = true;
    this.#listener.onFeed(true);
  }

  #onLost(generation: number, error: unknown): void {
    if (generation !== this.#generation || this.#isClosed) return;
    const wasConnected = this.#isConnected;
    this.#disconnect(error);
    if (error !== undefined) this.#listener.onError(error);
    if (wasConnected) this.#listener.onFeed(false);
    this.#cancelTimer = after(jitter(this.#retryMs), () => this.#connect(), true);
    this.#retryMs = Math.min(MAX_RETRY_MS, this.#retryMs * 2);
  }

  #disconnect(cause: unknown): void {
    this.#generation++;
    this.#isConnected = false;
    this.#stopTimer();
    this.#connection?.close();
    this.#connection = undefined;
    const requests = [...this.#inFlight, ...this.#queue];
    this.#inFlight = [];
    this.#queue = [];
    for (const { reject } of requests) reject(engineDown(cause));
  }

  #request(type: Request["type"], channels: readonly string[]): Promise<void> {
    if (!this.#isConnected) return Promise.reject(engineDown());
    if (channels.length === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#queue.push({ type, channels, resolve, reject });
      if (this.#inFlight.length === 0) this.#sendNext();
    });
  }

  #sendNext(): void {
    const connection = this.#connection;
    const type = this.#queue[0]?.type;
    if (!connection || type === undefined) return;
    const end = this.#queue.findIndex((request) => request.type !== type);
    const requests = this.#queue.splice(0, end < 0 ? this.#queue.length : end);
    this.#inFlight = requests;
    const generation = this.#generation;
    this.#startTimer(generation, "Redis feed did not answer in time.");
    const channels = [...new Set(requests.flatMap((request) => request.channels))];
    this.#send(connection, type, channels).then(
      () => {
        if (generation !== this.#generation) return;
        this.#stopTimer();
        this.#inFlight = [];
        for (const { resolve } of requests) resolve();
        this.#sendNext();
      },
      (error: unknown) => this.#onLost(generation, error),
    );
  }

  async #send(connection: FeedConnection, type: Request["type"], channels: readonly string[]): Promise<void> {
    for (let index = 0; index < channels.length; index += CHANNELS_PER_CALL)
      await connection[type](channels.slice(index, index + CHANNELS_PER_CALL));
  }

  /** Gives the connection up if the timer is not stopped in time. */
  #startTimer(generation: number, message: string): void {
    this.#cancelTimer = after(this.#timeoutMs, () => this.#onLost(generation, new Error(message)), true);
  }

  #stopTimer(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }
}
