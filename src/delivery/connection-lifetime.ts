import { after } from "../base/runtime.ts";
import type { StreamConnection } from "./stream-connection.ts";

/**
 * Rounds down, by a sixteenth at the most, to one of few durations: Node and Deno file timers by their duration, and keep the file of one
 * that was cleared until it would have fired.
 */
function roundDown(ms: number): number {
  const step = 2 ** Math.max(0, Math.floor(Math.log2(ms)) - 4);
  return Math.floor(ms / step) * step;
}

/**
 * Ends a client when what it was granted expires, and has it told to come back (`retire`) at an age between half of `maxAge` and all of
 * it. What is answered cancels that.
 */
function scheduleEnd(
  client: { expiresAt: number; expire(): void },
  expiresAt: number,
  maxAge: number,
  retire: () => void,
): (() => void) | undefined {
  client.expiresAt = expiresAt;
  if (expiresAt === Infinity && maxAge === Infinity) return undefined;
  const oldAt = Date.now() + maxAge * (0.5 + Math.random() / 2);
  const check = (): void => {
    const time = Date.now();
    if (expiresAt <= time) client.expire();
    else if (oldAt <= time) retire();
    // A timer may fire early by this clock, takes no more than 24 days, and is rounded down.
    else cancel = wait();
  };
  const wait = (): (() => void) => after(roundDown(Math.max(1, Math.min(expiresAt, oldAt) - Date.now())), check, true);
  let cancel = wait();
  return () => cancel();
}

/** Ties a client to its request and its time: it ends when the one is aborted or the other is over. */
export function bindLifetime(
  client: StreamConnection,
  { signal }: Request,
  expiresAt: number,
  maxAge: number,
  retire: () => void,
): void {
  const leave = (): void => client.abort("client-left");
  signal.addEventListener("abort", leave, { once: true });
  const cancel = scheduleEnd(client, expiresAt, maxAge, retire);
  client.release = () => {
    signal.removeEventListener("abort", leave);
    cancel?.();
  };
}
