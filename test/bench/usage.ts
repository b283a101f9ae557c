// CPU and memory of a server, as it reports them.
/** CPU and memory that a server has used, answered at `GET /cpu`. */
export interface Usage {
  /** Microseconds of CPU of all threads, in user and system mode. */
  readonly cpu: number;
  /** Resident memory in bytes. */
  readonly rss: number;
  /** Bytes of JavaScript after a garbage collection, buffers included. Only for `/cpu?collect`, and where the runtime can be asked to collect. */
  readonly heap?: number;
}

/** Whether a request, by its URL or path, asks for the usage. */
export const isUsageRequest = (url: string): boolean => /\/cpu(\?collect)?$/.test(url);

/** Returns the usage of this process for such a request. */
export function usage(url: string): Usage {
  const isCollected = url.endsWith("?collect") && collect();
  const { user, system } = process.cpuUsage();
  const { rss, heapUsed, external } = process.memoryUsage();
  const used = { cpu: user + system, rss };
  if (!isCollected) return used;
  // On Bun, heapUsed includes external memory.
  return { ...used, heap: runtime.Bun ? heapUsed : heapUsed + external };
}

/** The globals of runtimes that are needed here. `gc` exists with V8's --expose-gc. */
interface Runtime {
  readonly Bun?: { gc(wait: boolean): void };
  readonly gc?: () => void;
}
const runtime = globalThis as Runtime;

/** Collects garbage. Returns whether that was possible. */
function collect(): boolean {
  if (runtime.Bun) runtime.Bun.gc(true);
  else if (runtime.gc) {
    runtime.gc();
    // V8 frees the memory of buffers on a thread of its own; the next collection waits for that.
    runtime.gc();
  } else return false;
  return true;
}

/** Prints the port for the runner. Ends when the runner ends, because that closes our stdin. */
export function announcePort(port: number | undefined, end: () => void = () => process.exit()): void {
  process.stdin.on("end", end).on("error", end).resume();
  console.log(`listening ${port}`);
}
