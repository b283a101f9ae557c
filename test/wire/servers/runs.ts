// The runs of a broker under test, and actions of a test on them.

import { createRuns, type Run, type RunCloseReason, type Runs } from "../../../src/runs/index.ts";

/** Arguments of an action on a run. */
export interface RunArgs {
  readonly do: "start" | "write" | "close" | "stop" | "state";
  readonly id: string;
  /** Whether readers are refused. */
  readonly isSecret?: boolean;
  /** Number of events to write: `0 xxx…`, `1 xxx…`. */
  readonly count?: number;
  readonly bytes?: number;
  readonly reason?: RunCloseReason;
}

/** Events that are written before their outcome is awaited. */
const BATCH = 100;

export class TestRuns {
  readonly #runs: Runs;
  readonly #producers = new Map<string, Run>();
  #written = 0;

  constructor(broker: object) {
    this.#runs = createRuns(broker, { maxRunBytes: 64 * 1024 * 1024 });
  }

  /** Serves `/<name>/runs/<id>`. The parameter `options` has options of the response. */
  respond(request: Request, context: unknown): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    const options = JSON.parse(searchParams.get("options") ?? "{}") as object;
    return this.#runs.response(decodeURIComponent(pathname.split("/")[3] ?? ""), request, { ...options, context });
  }

  async act({ do: action, id, ...args }: RunArgs): Promise<unknown> {
    if (action === "start") {
      const run = await this.#runs.start(id, undefined, args.isSecret ? { authorize: () => false } : {});
      this.#producers.set(id, run);
      return {};
    }
    if (action === "stop") return { stopped: await this.#runs.stop(id) };
    const run = this.#producers.get(id);
    if (action === "state") return { ...(await this.#runs.inspect(id)), stopped: run?.stopped.aborted };
    if (!run) throw new Error(`Doing ${action}: no run "${id}" was started here.`);
    if (action === "close") return await run.close(args.reason);
    const pad = "x".repeat(args.bytes ?? 0);
    const ids: string[] = [];
    for (let number = 0; number < (args.count ?? 1); number += BATCH) {
      const texts = Array.from(
        { length: Math.min(BATCH, (args.count ?? 1) - number) },
        () => `${this.#written++} ${pad}`,
      );
      for (const written of await Promise.all(texts.map((text) => run.write(text)))) ids.push(written.id);
    }
    return { ids };
  }
}
