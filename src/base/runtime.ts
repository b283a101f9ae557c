// The one place that asks where it runs, and the only one that touches timers.

interface TimerGlobals {
  setImmediate?: (task: () => void) => unknown;
  navigator?: { userAgent?: string };
}
const globals: TimerGlobals = globalThis as TimerGlobals;

/** Whether this is a Cloudflare Workers isolate, where requests may land in many isolates and the module scope forbids timers. */
export const onWorkers = (): boolean => globals.navigator?.userAgent === "Cloudflare-Workers";

/** Runs `task` in the next turn of the event loop. workerd has no `setImmediate`. */
export function nextTurn(task: () => void): void {
  if (globals.setImmediate) globals.setImmediate(task);
  else setTimeout(task, 0);
}

/** The longest delay that a timer takes; what is longer fires at once on every runtime, so it is cut to this. */
const LONGEST_DELAY = 2 ** 31 - 1;

/** Runs `task` once after `ms`; the answer cancels it. `background` timers do not keep the process alive. */
export function after(ms: number, task: () => void, background = false): () => void {
  const timer: unknown = setTimeout(task, Math.min(ms, LONGEST_DELAY));
  if (background) release(timer);
  return () => clearTimeout(timer as number);
}

/** Runs `task` every `ms`, never keeping the process alive; the answer stops it. */
export function every(ms: number, task: () => void): () => void {
  const timer: unknown = setInterval(task, Math.min(ms, LONGEST_DELAY));
  release(timer);
  return () => clearInterval(timer as number);
}

const release = (timer: unknown): void => (timer as { unref?: () => void }).unref?.();

/** Monotonic milliseconds. On deployed Workers it stands still between I/O, so nothing there may depend on it. */
export const now = (): number => performance.now();

/** Bun's `server.timeout` takes no more seconds than this. */
const LONGEST_IDLE = 255;

/** Tells a runtime that cuts idle connections for how many milliseconds this one may be quiet. Bun wants the very request that it passed. */
export function extendIdleTimeout(context: unknown, request: Request, ms: number): void {
  const server = context as { timeout?: (request: Request, seconds: number) => void } | null | undefined;
  if (typeof server?.timeout === "function") server.timeout(request, Math.min(LONGEST_IDLE, Math.ceil(ms / 1000)));
}
