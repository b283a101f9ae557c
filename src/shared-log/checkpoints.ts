import { after } from "../base/runtime.ts";
import type { Position } from "../event/position.ts";
import type { Checkpoint, SharedLogSession } from "./shared-log.ts";

/** Milliseconds that a mark may be on its way through the feed before that is taken for dead. */
const PATIENCE = 3_000;

/** A mark that was asked for and has not been taken. */
export interface Asked {
  readonly keys: readonly string[];
  /** These are all that is followed. */
  readonly isAll: boolean;
  readonly resolve: (mark: Checkpoint) => void;
  readonly reject: (error: unknown) => void;
}

/** The marks that a process has asked for. */
export class Checkpoints {
  readonly #remote: SharedLogSession;
  readonly #nothingComes: () => void;
  readonly #asked = new Map<number, Asked>();
  /** Those that have come and were not taken yet. */
  readonly #here = new Set<number>();
  #token = 0;

  /** `nothingComes` is told when a mark was sent and did not come. */
  constructor(remote: SharedLogSession, nothingComes: () => void) {
    this.#remote = remote;
    this.#nothingComes = nothingComes;
  }

  /** Resolves when it was taken. */
  ask(keys: readonly string[], isAll: boolean, seen: Position | undefined): Promise<Checkpoint> {
    const token = ++this.#token;
    return new Promise((resolve, reject) => {
      let cancel: (() => void) | undefined;
      const end = (): void => {
        cancel?.();
        this.#asked.delete(token);
        this.#here.delete(token);
      };
      const asked: Asked = {
        keys,
        isAll,
        resolve: (mark) => {
          end();
          resolve(mark);
        },
        reject: (error) => {
          end();
          reject(error);
        },
      };
      this.#asked.set(token, asked);
      this.#remote.requestCheckpoint(token, keys, seen).then(() => {
        // It is on its way; what does not come is the feed's fault.
        if (!this.#asked.has(token)) return;
        cancel = after(PATIENCE, () => this.#here.has(token) || this.#nothingComes(), true);
      }, asked.reject);
    });
  }

  /** What asked for a mark that has come, if that still wants it. */
  came({ token }: Checkpoint): Asked | undefined {
    const asked = this.#asked.get(token);
    if (asked) this.#here.add(token);
    return asked;
  }

  rejectAll(error: unknown): void {
    for (const { reject } of [...this.#asked.values()]) reject(error);
  }
}
