import { jitter } from "../base/random.ts";
import { after } from "../base/runtime.ts";
import type { FeedConnection, FeedEvents } from "./clients/connection.ts";
import { down } from "./errors.ts";

/** The shortest and the longest pause before the feed is made again, milliseconds. */
const LEAST_PAUSE = 50;
const MOST_PAUSE = 2_000;

/** Who hears what comes through the feed. */
export interface FeedHome {
  message(channel: string, text: string): void;
  feed(isThere: boolean): void;
  failed(error: unknown): void;
}

/** A wish that waits its turn. */
interface Wish {
  readonly isFor: boolean;
  readonly channels: readonly string[];
  resolve(): void;
  reject(error: unknown): void;
}

/**
 * The connection that messages come in through: made again, with pauses that grow, whenever it is lost, and never used again once it was. Wishes go
 * out one at a time, several of a kind together, because a library that is asked to subscribe to what it is about to leave may do neither.
 */
export class Feed {
  readonly #open: (events: FeedEvents) => Promise<FeedConnection>;
  readonly #own: readonly string[];
  readonly #timeout: number;
  readonly #home: FeedHome;
  #connection: FeedConnection | undefined;
  #isThere = false;
  #isOver = false;
  /** Counts connections, so that what one of them still says is not taken for the next one's. */
  #turn = 0;
  #pause = LEAST_PAUSE;
  #cancel: (() => void) | undefined;
  #wishes: Wish[] = [];
  #running: readonly Wish[] = [];

  /** `own` are the channels of the process itself: the feed is there when they are subscribed. */
  constructor(
    open: (events: FeedEvents) => Promise<FeedConnection>,
    own: readonly string[],
    timeout: number,
    home: FeedHome,
  ) {
    this.#open = open;
    this.#own = own;
    this.#timeout = timeout;
    this.#home = home;
    this.#connect();
  }

  /** Rejects with `engine-down` while the feed is not there, and when it is lost. */
  subscribe(channels: readonly string[]): Promise<void> {
    return this.#wish(true, channels);
  }

  unsubscribe(channels: readonly string[]): Promise<void> {
    return this.#wish(false, channels);
  }

  /** Has another connection made. */
  renew(): void {
    if (this.#isThere) this.#lose(this.#turn, undefined);
  }

  close(): void {
    this.#isOver = true;
    this.#drop(undefined);
  }

  #connect(): void {
    const turn = ++this.#turn;
    // A connection that is not there in time is given up; should it come after all, it is closed.
    this.#cancel = after(this.#timeout, () => this.#lose(turn, new Error("Redis feed not connected in time.")), true);
    this.#establish(turn).catch((error: unknown) => this.#lose(turn, error));
  }

  async #establish(turn: number): Promise<void> {
    const connection = await this.#open({
      message: (channel, text) => {
        if (turn === this.#turn && this.#isThere) this.#home.message(channel, text);
      },
      lost: (error) => this.#lose(turn, error),
    });
    if (turn !== this.#turn || this.#isOver) return connection.close();
    this.#connection = connection;
    await connection.subscribe(this.#own);
    if (turn !== this.#turn) return;
    this.#cancel?.();
    this.#cancel = undefined;
    this.#pause = LEAST_PAUSE;
    this.#isThere = true;
    this.#home.feed(true);
  }

  #lose(turn: number, error: unknown): void {
    if (turn !== this.#turn || this.#isOver) return;
    const was = this.#isThere;
    this.#drop(error);
    if (error !== undefined) this.#home.failed(error);
    if (was) this.#home.feed(false);
    this.#cancel = after(jitter(this.#pause), () => this.#connect(), true);
    this.#pause = Math.min(MOST_PAUSE, this.#pause * 2);
  }

  #drop(cause: unknown): void {
    this.#turn++;
    this.#isThere = false;
    this.#cancel?.();
    this.#cancel = undefined;
    this.#connection?.close();
    this.#connection = undefined;
    const wishes = [...this.#running, ...this.#wishes];
    this.#running = [];
    this.#wishes = [];
    for (const { reject } of wishes) reject(down(cause));
  }

  #wish(isFor: boolean, channels: readonly string[]): Promise<void> {
    if (!this.#isThere) return Promise.reject(down());
    if (channels.length === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#wishes.push({ isFor, channels, resolve, reject });
      if (this.#running.length === 0) this.#next();
    });
  }

  #next(): void {
    const connection = this.#connection;
    const kind = this.#wishes[0]?.isFor;
    if (!connection || kind === undefined) return;
    const end = this.#wishes.findIndex(({ isFor }) => isFor !== kind);
    const running = this.#wishes.splice(0, end < 0 ? this.#wishes.length : end);
    this.#running = running;
    const turn = this.#turn;
    this.#cancel = after(this.#timeout, () => this.#lose(turn, new Error("Redis feed did not answer in time.")), true);
    const channels = [...new Set(running.flatMap((wish) => wish.channels))];
    this.#ask(connection, kind, channels).then(
      () => {
        if (turn !== this.#turn) return;
        this.#cancel?.();
        this.#cancel = undefined;
        this.#running = [];
        for (const { resolve } of running) resolve();
        this.#next();
      },
      (error: unknown) => this.#lose(turn, error),
    );
  }

  async #ask(connection: FeedConnection, isFor: boolean, channels: readonly string[]): Promise<void> {
    // So many at a time, that no command grows beyond what a server or a library takes.
    for (let index = 0; index < channels.length; index += 1_000) {
      const some = channels.slice(index, index + 1_000);
      await (isFor ? connection.subscribe(some) : connection.unsubscribe(some));
    }
  }
}
