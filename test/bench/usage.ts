/** What a server has used. Answered at `GET /cpu`. */
export interface Usage {
  /** Microseconds of CPU, of all threads, in user and system mode. */
  readonly cpu: number;
  /** Bytes resident. */
  readonly rss: number;
  /** Bytes that JavaScript holds, buffers included, after a collection: at `/cpu?collect` where the runtime lets itself be asked for one. */
  readonly heap?: number;
}

/** Whether a request, by its url or its path, is for what the server has used. */
export const asksUsage = (url: string): boolean => /\/cpu(\?collect)?$/.test(url);

/** What this process has used, as such a request asks for it. */
export function usage(url: string): Usage {
  const isCollected = url.endsWith("?collect") && collect();
  const { user, system } = process.cpuUsage();
  const { rss, heapUsed, external } = process.memoryUsage();
  const used = { cpu: user + system, rss };
  if (!isCollected) return used;
  // Bun counts what is outside of the heap in both.
  return { ...used, heap: runtime.Bun ? heapUsed : heapUsed + external };
}

/** What of the runtimes' own is needed here; `gc` is there with V8's --expose-gc. */
interface Runtime {
  readonly Bun?: { gc(wait: boolean): void };
  readonly gc?: () => void;
}
const runtime = globalThis as Runtime;

/** False where it cannot be done. */
function collect(): boolean {
  if (runtime.Bun) runtime.Bun.gc(true);
  else if (runtime.gc) {
    runtime.gc();
    // What buffers held is given back by a thread of its own, which the next collection waits for.
    runtime.gc();
  } else return false;
  return true;
}

/** Tells the runner where to connect, and ends with it: its end of our stdin closes, however it ends. */
export function announce(port: number | undefined, end: () => void = () => process.exit()): void {
  process.stdin.on("end", end).on("error", end).resume();
  console.log(`listening ${port}`);
}
