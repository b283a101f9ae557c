/** @throws `RangeError` for what is no number, or less than `least`. */
export function checkNumbers(where: string, values: Readonly<Record<string, unknown>>, least: number): void {
  for (const [name, value] of Object.entries(values)) {
    if (typeof value === "number" && value >= least) continue;
    throw new RangeError(`${where} refused: ${name} must be a number, ${least} or more, not ${String(value)}.`);
  }
}
