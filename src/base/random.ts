const ALPHABET = "0123456789abcdefghijklmnopqrstuv";

/** A random name of `length` characters from `[0-9a-v]`, five bits each, from the runtime's secure generator. */
export function randomName(length: number): string {
  let name = "";
  for (const byte of crypto.getRandomValues(new Uint8Array(length))) name += ALPHABET[byte & 31];
  return name;
}

/** `value`, spread evenly over half to one and a half of itself, so that clients told the same do not act at once. */
export const jitter = (value: number): number => Math.round(value * (0.5 + Math.random()));
