import { parsePosition } from "../../../src/event/position.ts";

/** The epochs that anybody saw, in the order of their appearance. */
export class Epochs {
  readonly #names = new Set<string>();

  see(id: string | undefined): void {
    const position = parsePosition(id ?? "");
    if (position) this.#names.add(position.epoch);
  }

  get names(): readonly string[] {
    return [...this.#names];
  }
}
