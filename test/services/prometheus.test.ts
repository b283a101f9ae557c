// The metrics text as Prometheus itself reads it: promtool, which also checks names, and a server that scrapes and evaluates the documented alerts.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { serve } from "@hono/node-server";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Broker, createBroker } from "../../src/index.ts";
import { freePort, untilListening } from "../support/servers/server.ts";
import { skipIf } from "../support/skip.ts";
import { findInGuides } from "./guides.ts";

const { error: missing, stdout: version } = spawnSync("promtool", ["--version"], { encoding: "utf8" });
// In CI a missing promtool fails the test.
const options = skipIf(process.env.CI !== "true" && missing !== undefined, "there is no promtool on the PATH");
const run = (title: string, body: () => Promise<void>): void => test(title, options, body);
if (!missing) console.log(`services on ${version.split(" (")[0]}`);

/** The documented alerts. */
const rules = findInGuides(/^```yaml\n(groups:[\s\S]*?)^```/m);

/** Returns promtool's exit status and its output, which is empty for a correct text. */
function check(input: string): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync("promtool", ["check", "metrics"], { input, encoding: "utf8" });
  return { status, output: `${stdout}${stderr}` };
}

let broker: Broker;
let web: Server;
let prometheus: ChildProcess | undefined;
const folder = mkdtempSync(join(tmpdir(), "fanwire-prometheus-"));
let url: string;

beforeAll(async () => {
  broker = createBroker();
  await new Promise<void>((resolve) => {
    web = serve({ fetch: broker.metrics, port: 0, hostname: "127.0.0.1" }, () => resolve()) as Server;
  });
  if (missing) return;
  writeFileSync(join(folder, "rules.yml"), rules);
  writeFileSync(
    join(folder, "prometheus.yml"),
    `global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }
rule_files: [rules.yml]
scrape_configs:
  - job_name: fanwire
    static_configs: [{ targets: ["127.0.0.1:${(web.address() as AddressInfo).port}"] }]
`,
  );
  const port = await freePort();
  url = `http://127.0.0.1:${port}/api/v1`;
  prometheus = spawn(
    "prometheus",
    [
      `--config.file=${folder}/prometheus.yml`,
      `--storage.tsdb.path=${folder}/data`,
      `--web.listen-address=127.0.0.1:${port}`,
    ],
    { stdio: "ignore" },
  );
  await untilListening(port);
});

afterAll(async () => {
  prometheus?.kill("SIGKILL");
  web.close();
  await broker.close();
  rmSync(folder, { recursive: true, force: true });
});

const ask = async (path: string): Promise<unknown> => {
  const answer = await fetch(`${url}/${path}`);
  // Prometheus answers 503 until it has loaded its storage.
  return answer.ok ? ((await answer.json()) as { data: unknown }).data : undefined;
};

/** Returns the values of an expression, by one of its labels. Repeats the query until it has a result. */
async function query(expression: string, label: string): Promise<Record<string, number>> {
  for (;;) {
    const data = (await ask(`query?query=${encodeURIComponent(expression)}`)) as QueryResult | undefined;
    if (data && data.result.length > 0)
      return Object.fromEntries(data.result.map(({ metric, value }) => [metric[label] ?? "", Number(value[1])]));
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
/** A result of Prometheus's HTTP API. */
interface QueryResult {
  readonly result: readonly { readonly metric: Record<string, string>; readonly value: [number, string] }[];
}

run("metrics: promtool accepts the text and its names, and refuses broken versions of it", async () => {
  const text = await (await broker.metrics(new Request("http://fanwire.test/metrics"))).text();
  expect(check(text)).toEqual({ status: 0, output: "" });
  expect(check(text.replace("fanwire_clients 0", "fanwire_clients")).status).not.toBe(0);
  expect(check(text.replaceAll("_total", "_sum_total").replaceAll("counter", "gauge")).output).not.toBe("");
});

run("metrics: a Prometheus server reads values, labels, types and help texts as intended", async () => {
  await broker.broadcast("x", { channels: "a" });
  await broker.fetch(new Request("http://fanwire.test/nothing"));
  expect(await query("fanwire_events_published_total == 1", "job")).toEqual({ fanwire: 1 });
  expect(await query("fanwire_failures_total > 0", "code")).toEqual({ "not-found": 1 });
  expect(await query("fanwire_disconnects_total", "reason")).toMatchObject({ timeout: 0, "client-left": 0 });
  expect(await query("fanwire_engine_up", "job")).toEqual({ fanwire: 1 });
  const metadata = (await ask("metadata")) as Record<string, { type: string; help: string }[]>;
  const ours = Object.entries(metadata).filter(([name]) => name.startsWith("fanwire_"));
  expect(ours.length).toBe(18);
  for (const [name, [{ type, help } = { type: "", help: "" }]] of ours)
    expect([name, type, help.length > 9]).toEqual([name, name.endsWith("_total") ? "counter" : "gauge", true]);
});

run("documentation: every alert is evaluated, uses existing metrics, and is inactive while all is well", async () => {
  type Rule = { query: string; health: string; state: string };
  let found: Rule[] = [];
  while (found.length === 0 || found.some(({ health }) => health === "unknown")) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    const { groups } = ((await ask("rules")) ?? { groups: [] }) as { groups: { rules: Rule[] }[] };
    found = groups.flatMap(({ rules }) => rules);
  }
  expect(found.length).toBeGreaterThan(3);
  const text = await (await broker.metrics(new Request("http://fanwire.test/metrics"))).text();
  for (const { query, health, state } of found) {
    expect([query, health, state]).toEqual([query, "ok", "inactive"]);
    const names = query.match(/fanwire_\w+(\{[^}]*\})?/g) ?? [];
    expect(names.length).toBeGreaterThan(0);
    for (const name of names) expect(text).toContain(`\n${name.replace(/\{(\w+)=~?"([\w-]+).*\}/, '{$1="$2"}')} `);
  }
});
