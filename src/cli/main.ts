#!/usr/bin/env node
// `npx fanwire`: a broker as a program of its own, for back ends in other languages.
/// <reference types="node" />
import { readFileSync } from "node:fs";
import type { Broker } from "../broker/interface.ts";
import { pathOf } from "../node/node-handler.ts";
import { brokerOf, storeOf } from "./broker.ts";
import { type Configuration, HELP, readConfiguration, UsageError } from "./options.ts";
import { PAGE } from "./page.ts";
import { type Listening, listen } from "./serve.ts";

/** Prints an event of the program as one line of JSON. */
function log(level: "info" | "warn" | "error", event: string, fields: Readonly<Record<string, unknown>> = {}): void {
  process.stdout.write(`${JSON.stringify({ time: new Date().toISOString(), level, event, ...fields })}\n`);
}

async function main(): Promise<void> {
  const configuration = readConfiguration(process.argv.slice(2), process.env);
  if (configuration === "help") process.stdout.write(HELP);
  else if (configuration === "version") process.stdout.write(`${versionOf()}\n`);
  else await run(configuration);
}

async function run(configuration: Configuration): Promise<void> {
  const { host, port, open, drain } = configuration;
  const broker = await brokerOf(configuration, ({ stage, error }) =>
    log("error", "error", { stage, message: textOf(error) }),
  );
  const server = await listen(routes(broker, open), host, port).catch((error: NodeJS.ErrnoException) => {
    throw new UsageError(`cannot listen on ${host}, port ${port}: ${reasonOf(error)}`);
  });
  const store = storeOf(configuration);
  const engine = store === "missing" ? "memory" : store;
  const file = store === "sqlite" ? { file: configuration.file?.path } : {};
  log("info", "listening", { url: server.url, version: versionOf(), engine, ...file });
  if (store === "missing")
    log("warn", "restarts-lose-events", {
      cure: "use Node 22.13 or later, or Bun, which have SQLite; or set --memory",
    });
  // Opens the engine, so that what is wrong with its file is printed now.
  if (store === "sqlite") broker.history({ limit: 0 }).catch(() => undefined);
  if (!configuration.jwt) log("warn", "reading-is-open", { cure: "set --jwt-secret or --jwks" });
  if (!configuration.jwt && configuration.publishToken === undefined)
    log("warn", "publishing-is-closed", { cure: "set --publish-token, --jwt-secret or --jwks" });
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    // Once: a second signal ends the process at once.
    process.once(signal, () => void shutDown(signal, broker, server, drain));
  }
}

async function shutDown(signal: string, broker: Broker, server: Listening, drain: number): Promise<void> {
  const { clients } = broker.stats();
  log("info", "draining", { signal, clients, ms: drain });
  await broker.close({ spreadOver: drain });
  await server.stop();
  log("info", "stopped");
  // A client of Redis would keep the process alive.
  process.exit(0);
}

/** Returns the handler of all paths. */
function routes(broker: Broker, open: boolean): (request: Request, context?: unknown) => Response | Promise<Response> {
  return (request, context) => {
    const path = pathOf(request.url);
    if (path === "/health") return broker.health(request);
    if (path === "/metrics") return broker.metrics(request);
    if (open && path === "/" && request.method === "GET")
      return new Response(PAGE, { headers: { "content-type": "text/html; charset=utf-8" } });
    return broker.fetch(request, context);
  };
}

/** Says why a server cannot listen. */
function reasonOf({ code, message }: NodeJS.ErrnoException): string {
  if (code === "EADDRINUSE") return "another program uses it; choose another --port";
  if (code === "EACCES") return "it is not allowed; choose a --port above 1023";
  if (code === "EADDRNOTAVAIL" || code === "ENOTFOUND")
    return "this machine has no such address; choose another --host";
  return message;
}

const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

const versionOf = (): string =>
  (JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { version: string }).version;

main().catch((error: unknown) => {
  process.stderr.write(`fanwire: ${textOf(error)}.${error instanceof UsageError ? " See npx fanwire --help." : ""}\n`);
  process.exit(error instanceof UsageError ? 2 : 1);
});
