import process from "node:process";

/** What a server has used. Answered at `GET /cpu`. */
export interface Usage {
  /** Microseconds of CPU, of all threads, in user and system mode. */
  readonly cpu: number;
  /** Bytes resident. */
  readonly rss: number;
}

/** What this process has used. */
export function usage(): Usage {
  const { user, system } = process.cpuUsage();
  return { cpu: user + system, rss: process.memoryUsage().rss };
}

/** Tells the runner where to connect, and ends with it: its end of our stdin closes, however it ends. */
export function announce(port: number | undefined, end: () => void = () => process.exit()): void {
  process.stdin.on("end", end).on("error", end).resume();
  console.log(`listening ${port}`);
}
