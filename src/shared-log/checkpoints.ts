// Requests checkpoints from the store, and notices when the feed no longer delivers them.
import { after } from "../base/runtime.ts";
import type { Position } from "../event/position.ts";
import type { Checkpoint, SharedLogSession } from "./shared-log.ts";

/** The longest time that a checkpoint may take through the feed. After it the feed counts as dead. */
const TIMEOUT_MS = 3_000;

/** A request for a checkpoint that was not applied yet. */
export interface CheckpointRequest {
  readonly keys: readonly string[];
  /** Whether `keys` are all channels that this process is subscribed to. */
  readonly coversAll: boolean;
  readonly resolve: (checkpoint: Checkpoint) => void;
  readonly reject: (error: unknown) => void;
}

/** The checkpoints that a process has requested. */
export class Checkpoints {
  readonly #store: SharedLogSession;
  readonly #onTimeout: () => void;
  readonly #requests = new Map<number, CheckpointRequest>();
  /** Tokens of checkpoints that have arrived and were not applied yet. */
  readonly #arrived = new Set<number>();
  #token = 0;

  /** `onTimeout` is called when a checkpoint was sent and did not arrive. */
  constructor(store: SharedLogSession, onTimeout: () => void) {
    this.#store = store;
    this.#onTimeout = onTimeout;
  }

  /** Requests a checkpoint. Resolves when it was applied. */
  request(keys: readonly string[], coversAll: boolean, seen: Position | undefined): Promise<Checkpoint> {
    const token = ++this.#token;
    return new Promise((resolve, reject) => {
      let cancelTimer: (() => void) | undefined;
      const finish = (): void => {
        cancelTimer?.();
        this.#requests.delete(token);
        this.#arrived.delete(token);
      };
      const request: CheckpointRequest = {
        keys,
        coversAll,
        resolve: (checkpoint) => {
          finish();
          resolve(checkpoint);
        },
        reject: (error) => {
          finish();
          reject(error);
        },
      };
      this.#requests.set(token, request);
      this.#store.requestCheckpoint(token, keys, seen).then(() => {
        // The store has sent the checkpoint. If it does not arrive, the feed is at fault.
        if (!this.#requests.has(token)) return;
        cancelTimer = after(TIMEOUT_MS, () => this.#arrived.has(token) || this.#onTimeout(), true);
      }, request.reject);
    });
  }

  /** Notes that a checkpoint has arrived. Returns its request, if that is still open. */
  arrive({ token }: Checkpoint): CheckpointRequest | undefined {
    const request = this.#requests.get(token);
    if (request) this.#arrived.add(token);
    return request;
  }

  rejectAll(error: unknown): void {
    for (const { reject } of [...this.#requests.values()]) reject(error);
  }
}
