// Ends a connection when its request is aborted, its grant expires, or it reaches `maxConnectionAge`.
import { after } from "../base/runtime.ts";

/** The limits of a connection in time. */
export interface Lifetime {
  /** Aborted when the client leaves. */
  readonly signal: AbortSignal;
  /** Epoch milliseconds at which the grant expires, or `Infinity`. */
  readonly expiresAt: number;
  /** The option `maxConnectionAge`, in milliseconds. */
  readonly maxConnectionAge: number;
  /** The connection is old enough to be moved to another instance. */
  onMaxAge(): void;
}

/** Receives the end of a lifetime. */
export interface LifetimeListener {
  onClientLeft(): void;
  onExpired(): void;
}

/** Watches a lifetime. Returns a function that stops the watch, or only that of the signal, which it then no longer holds. */
export function watchLifetime(lifetime: Lifetime, listener: LifetimeListener): (signalOnly?: boolean) => void {
  let signal: AbortSignal | undefined = lifetime.signal;
  const onAbort = (): void => listener.onClientLeft();
  signal.addEventListener("abort", onAbort, { once: true });
  const { expiresAt, maxConnectionAge, onMaxAge } = lifetime;
  const cancelTimer = scheduleEnd({ expiresAt, maxConnectionAge, onMaxAge }, listener);
  return (signalOnly) => {
    signal?.removeEventListener("abort", onAbort);
    signal = undefined;
    if (!signalOnly) cancelTimer?.();
  };
}

/** Calls `onExpired` at `expiresAt`, and `onMaxAge` at an age between half of `maxConnectionAge` and all of it. Returns a function that cancels both. */
function scheduleEnd(lifetime: Omit<Lifetime, "signal">, listener: LifetimeListener): (() => void) | undefined {
  const { expiresAt, maxConnectionAge } = lifetime;
  if (expiresAt === Infinity && maxConnectionAge === Infinity) return undefined;
  const oldAt = Date.now() + maxConnectionAge * (0.5 + Math.random() / 2);
  const check = (): void => {
    const time = Date.now();
    if (expiresAt <= time) listener.onExpired();
    else if (oldAt <= time) lifetime.onMaxAge();
    // A timer may fire early by this clock, takes no more than 24 days, and is rounded down.
    else cancel = wait();
  };
  const wait = (): (() => void) => after(roundDown(Math.max(1, Math.min(expiresAt, oldAt) - Date.now())), check, true);
  let cancel = wait();
  return () => cancel();
}

/**
 * Rounds a duration down, by a sixteenth at most, to one of few values. Node and Deno keep a list of timers for each duration, and a
 * cleared timer's list stays until it would have fired.
 */
function roundDown(ms: number): number {
  const step = 2 ** Math.max(0, Math.floor(Math.log2(ms)) - 4);
  return Math.floor(ms / step) * step;
}
