// Random names and random delays.

const ALPHABET = "0123456789abcdefghijklmnopqrstuv";

/** Returns a random name of `length` characters from `[0-9a-v]`, five bits each, from the runtime's secure generator. */
export function randomName(length: number): string {
  let name = "";
  for (const byte of crypto.getRandomValues(new Uint8Array(length))) name += ALPHABET[byte & 31];
  return name;
}

/** Returns a random whole number from half of `value` to one and a half times it, so that clients with the same value do not all act at once. */
export const jitter = (value: number): number => Math.round(value * (0.5 + Math.random()));
