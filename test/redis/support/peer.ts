// One of the processes that share a log in Redis, without a broker: its session, and every call that its listener received.
import { Redis } from "ioredis";
import type { PeerCommand } from "../../../src/engine/engine.ts";
import type { RedisOptions } from "../../../src/redis/options.ts";
import { redisLog } from "../../../src/redis/redis-log.ts";
import type { Checkpoint, FeedEvent, SharedLogSession } from "../../../src/shared-log/shared-log.ts";

export class Peer {
  readonly client: Redis;
  readonly session: SharedLogSession;
  readonly events: FeedEvent[] = [];
  readonly checkpoints: Checkpoint[] = [];
  readonly peerCommands: PeerCommand[] = [];
  readonly errors: unknown[] = [];
  /** All calls of the listener, in order: events by position, checkpoints by token, commands by client id, and changes of state. */
  readonly calls: string[] = [];
  hasFeed = false;
  hasCommands = false;
  #waiters = new Set<() => void>();
  #token = 0;

  constructor(port: number, options: Partial<RedisOptions> = {}) {
    this.client = new Redis(port, "127.0.0.1", { retryStrategy: () => 20 });
    const record = (call: string): void => {
      this.calls.push(call);
      for (const waiter of [...this.#waiters]) waiter();
    };
    this.session = redisLog({ client: this.client, prefix: "test", ...options }).open({
      onEvent: (event) => {
        this.events.push(event);
        record(`event ${event.seq}`);
      },
      onCheckpoint: (checkpoint) => {
        this.checkpoints.push(checkpoint);
        record(`checkpoint ${checkpoint.token}`);
      },
      onCommand: (command) => {
        this.peerCommands.push(command);
        record(`command ${command.clientId}`);
      },
      onFeed: (isConnected) => {
        this.hasFeed = isConnected;
        record(`feed ${isConnected}`);
      },
      onCommands: (isConnected) => {
        this.hasCommands = isConnected;
        record(`commands ${isConnected}`);
      },
      onError: (error) => void this.errors.push(error),
    });
  }

  /** Resolves when `holds` returns `true`. It is checked after every call of the listener. */
  until(holds: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const check = (): void => {
        if (!holds()) return;
        this.#waiters.delete(check);
        resolve();
      };
      this.#waiters.add(check);
      check();
    });
  }

  ready(): Promise<void> {
    return this.until(() => this.hasFeed && this.hasCommands);
  }

  append(
    keys: readonly string[],
    text: string,
    options: { idempotencyKey?: string; recipient?: string; subject?: string } = {},
  ): ReturnType<SharedLogSession["append"]> {
    const { idempotencyKey, recipient, subject } = options;
    return this.session.append(keys, text, undefined, idempotencyKey, recipient, subject);
  }

  /** Requests a checkpoint, and returns it once it has arrived. */
  async checkpoint(keys: readonly string[] = [], seen?: { epoch: string; seq: number }): Promise<Checkpoint> {
    const token = ++this.#token;
    await this.session.requestCheckpoint(token, keys, seen);
    const isRequested = (checkpoint: Checkpoint): boolean => checkpoint.token === token;
    await this.until(() => this.checkpoints.some(isRequested));
    return this.checkpoints.find(isRequested) as Checkpoint;
  }

  close(): void {
    this.session.close(0);
    this.client.disconnect();
  }
}

/** Returns the code of the error that a promise is rejected with, or "resolved". */
export const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "resolved",
    (error: { code?: string }) => error.code ?? String(error),
  );
