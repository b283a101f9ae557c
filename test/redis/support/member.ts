import { Redis } from "ioredis";
import type { PeerCommand } from "../../../src/engine/engine.ts";
import type { RedisOptions } from "../../../src/redis/options.ts";
import { redisLog } from "../../../src/redis/redis-log.ts";
import type { Checkpoint, FeedEvent, SharedLogSession } from "../../../src/shared-log/shared-log.ts";

/** One process's part in a shared log, and all that it was told. */
export class Member {
  readonly client: Redis;
  readonly session: SharedLogSession;
  readonly messages: FeedEvent[] = [];
  readonly marks: Checkpoint[] = [];
  readonly orders: PeerCommand[] = [];
  readonly failures: unknown[] = [];
  /** What was told, in order: messages by position, marks by token, and changes of state. */
  readonly told: string[] = [];
  hasFeed = false;
  hasCommands = false;
  #waiters = new Set<() => void>();
  #token = 0;

  constructor(port: number, options: Partial<RedisOptions> = {}) {
    this.client = new Redis(port, "127.0.0.1", { retryStrategy: () => 20 });
    const tell = (what: string): void => {
      this.told.push(what);
      for (const waiter of [...this.#waiters]) waiter();
    };
    this.session = redisLog({ client: this.client, prefix: "test", ...options }).open({
      onEvent: (message) => {
        this.messages.push(message);
        tell(`message ${message.seq}`);
      },
      onCheckpoint: (mark) => {
        this.marks.push(mark);
        tell(`mark ${mark.token}`);
      },
      onCommand: (order) => {
        this.orders.push(order);
        tell(`order ${order.clientId}`);
      },
      onFeed: (isThere) => {
        this.hasFeed = isThere;
        tell(`feed ${isThere}`);
      },
      onCommands: (isThere) => {
        this.hasCommands = isThere;
        tell(`commands ${isThere}`);
      },
      onError: (error) => void this.failures.push(error),
    });
  }

  /** Resolves when this holds; it is asked whenever something was told. */
  until(holds: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const look = (): void => {
        if (!holds()) return;
        this.#waiters.delete(look);
        resolve();
      };
      this.#waiters.add(look);
      look();
    });
  }

  ready(): Promise<void> {
    return this.until(() => this.hasFeed && this.hasCommands);
  }

  append(
    keys: readonly string[],
    text: string,
    { nonce, recipient }: { nonce?: string; recipient?: string } = {},
  ): ReturnType<SharedLogSession["append"]> {
    return this.session.append(keys, text, undefined, nonce, recipient);
  }

  /** A mark, when it has come. */
  async mark(keys: readonly string[] = [], seen?: { epoch: string; seq: number }): Promise<Checkpoint> {
    const token = ++this.#token;
    await this.session.requestCheckpoint(token, keys, seen);
    await this.until(() => this.marks.some((mark) => mark.token === token));
    return this.marks.find((mark) => mark.token === token) as Checkpoint;
  }

  close(): void {
    this.session.close(0);
    this.client.disconnect();
  }
}

/** What a promise is rejected with: a code, or that it was not. */
export const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "resolved",
    (error: { code?: string }) => error.code ?? String(error),
  );
