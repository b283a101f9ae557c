// Runs the cases of the contract on one of the engines in this folder: `node run-cases.ts sqlite|tcp`. Prints one line of JSON per case.
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Engine, sharedLogEngine } from "fanwire/engine";
import { brokerCases, type EngineHarness, engineCases, missingNeeds, type Namespace } from "fanwire/engine/testing";
import { FlakyProxy } from "./flaky-proxy.ts";
import { sqliteEngine } from "./sqlite-engine.ts";
import { createTcpLogServer, tcpLog } from "./tcp-log.ts";

/** The outcome of a case: passed, failed with an error, or not run because of a need. */
export interface CaseOutcome {
  readonly id: string;
  readonly missing: readonly string[];
  readonly error: string | undefined;
}

/** One engine for all brokers of the process. The file is closed and opened again whenever no broker is left. */
const sqlite: EngineHarness = {
  open({ retention, idempotencyWindow } = {}): Namespace {
    const folder = mkdtempSync(join(tmpdir(), "fanwire-sqlite-"));
    const engine = sqliteEngine(join(folder, "log.db"), { retention, idempotencyWindow });
    return { engine: () => engine, close: () => rmSync(folder, { recursive: true }) };
  },
};

/** More engines than any case uses. */
const MAX_ENGINES = 6;
/** Milliseconds for which answers are lost. */
const LOST_MS = 300;

/** One server, and for each engine a proxy on the way to it. */
const tcp: EngineHarness = {
  offers: ["presence", "cutFeed", "swallowFeed", "loseReply", "goAway", "comeBack", "beginAnew"],
  async open({ retention, idempotencyWindow } = {}): Promise<Namespace> {
    const { server, beginAnew } = createTcpLogServer({ retention, idempotencyWindow });
    await once(server.listen(0, "127.0.0.1"), "listening");
    const { port } = server.address() as { port: number };
    const proxies = await Promise.all(Array.from({ length: MAX_ENGINES }, () => FlakyProxy.start(port)));
    const proxyOf = (index: number): FlakyProxy => proxies[index] as FlakyProxy;
    let engines = 0;
    return {
      engine: (): Engine => sharedLogEngine(tcpLog(proxyOf(engines++).port), { retention }),
      faults: {
        cutFeed: (index) => proxyOf(index).cut(),
        swallowFeed: (index) => proxyOf(index).swallow(),
        loseReply() {
          for (const proxy of proxies) proxy.swallow();
          setTimeout(() => {
            for (const proxy of proxies) proxy.cut();
          }, LOST_MS);
        },
        goAway() {
          for (const proxy of proxies) {
            proxy.isAway = true;
            proxy.cut();
          }
        },
        comeBack() {
          for (const proxy of proxies) proxy.isAway = false;
        },
        beginAnew,
      },
      close() {
        for (const proxy of proxies) proxy.close();
        server.close();
      },
    };
  },
};

const harness = { sqlite, tcp }[process.argv[2] ?? ""];
if (!harness) throw new Error("Usage: node run-cases.ts sqlite|tcp");

const cases = [...engineCases, ...brokerCases];
/** Runs one case after another. Several of these run at once, because most cases wait most of the time. */
async function work(): Promise<void> {
  for (let next = cases.shift(); next; next = cases.shift()) {
    const missing = missingNeeds(next, harness as EngineHarness);
    let error: string | undefined;
    if (missing.length === 0)
      await next.run(harness as EngineHarness).catch((cause: unknown) => (error = String(cause)));
    console.log(JSON.stringify({ id: next.id, missing, error } satisfies CaseOutcome));
  }
}
await Promise.all(Array.from({ length: 8 }, work));
