// Remembers how far this process knows the shared log.
import type { Position } from "../event/position.ts";

/** Epochs that are over, remembered at most. */
const MAX_PAST_EPOCHS = 100;

/** The last position that this process knows of, and the epochs that are over. A position of a past epoch never counts. */
export class SeenPosition {
  readonly #pastEpochs = new Set<string>();
  #last: Position | undefined;

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
