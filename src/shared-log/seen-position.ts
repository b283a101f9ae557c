// Remembers how far this process knows the shared log.
import type { Position } from "../event/position.ts";

/** Epochs that are over, remembered at most. */
const MAX_PAST_EPOCHS = 100;
/**
 * Positions that a log can grow by between two checkpoints. No store appends as many events in 5 s, so an event beyond them is not believed
 * before a checkpoint has reported the head.
 */
const MAX_GROWTH = 1_000_000;

/** The last position that this process knows of, and the epochs that are over. A position of a past epoch never counts. */
export class SeenPosition {
  readonly #pastEpochs = new Set<string>();
  #last: Position | undefined;
  /** A position that the feed sent, and that was not believed. */
  #doubted: Position | undefined;

  get last(): Position | undefined {
    return this.#last;
  }

  isPast(epoch: string): boolean {
    return this.#pastEpochs.has(epoch);
  }

  note({ epoch, seq }: Position): void {
    if (this.isPast(epoch)) return;
    if (this.#last?.epoch !== epoch || this.#last.seq < seq) this.#last = { epoch, seq };
  }

  /** Whether a log of this epoch can have the position by now. One that is not believed is remembered until the next checkpoint. */
  believes({ epoch, seq }: Position, current: string): boolean {
    const isPossible = this.#last?.epoch !== epoch || seq <= this.#last.seq + MAX_GROWTH;
    if (epoch === current && isPossible) return true;
    this.#doubted = { epoch, seq };
    return false;
  }

  /** Returns an error if a checkpoint shows that the store does not have the position that was doubted. */
  findLie({ epoch, head }: { readonly epoch: string; readonly head: number }): Error | undefined {
    const doubted = this.#doubted;
    this.#doubted = undefined;
    if (!doubted || (doubted.epoch === epoch && doubted.seq <= head)) return undefined;
    const [sent, known] = [`${doubted.epoch}-${doubted.seq}`, `${epoch}-${head}`];
    return new Error(
      `Event ignored: the feed sent the position ${sent}, and the store is at ${known}. Check who may write to the store.`,
    );
  }

  /** Ends an epoch: another log has replaced its log. */
  endEpoch(epoch: string): void {
    this.#last = undefined;
    this.#pastEpochs.add(epoch);
    for (const oldest of this.#pastEpochs) {
      if (this.#pastEpochs.size <= MAX_PAST_EPOCHS) break;
      this.#pastEpochs.delete(oldest);
    }
  }
}
