// The epochs that appeared in a run.
import { parsePosition } from "../../../src/event/position.ts";

/** The epochs that any client or publisher saw, in order of appearance. */
export class Epochs {
  readonly #names = new Set<string>();

  /** Notes the epoch of an id. */
  note(id: string | undefined): void {
    const position = parsePosition(id ?? "");
    if (position) this.#names.add(position.epoch);
  }

  get names(): readonly string[] {
    return [...this.#names];
  }
}
