// Runs an adapter where its client runs: in this process, in a page of Chromium, or in Deno.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { build } from "esbuild";
import type { Browser } from "playwright-core";
import type { ClientEvent, Connect } from "./client.ts";

type Runtime = "node" | "chromium" | "deno";

/** An adapter, and what it needs. */
export interface AdapterOptions {
  readonly runtime: Runtime;
  /** The name of a file in `adapters`. */
  readonly adapter: string;
  /** Scripts that a page loads first, as paths in `node_modules`. */
  readonly scripts?: readonly string[];
}

/** Connects a client and returns a function that ends it. Parameters as for `Connect`. */
export type Start = (
  adapter: AdapterOptions,
  url: string,
  onEvent: (event: ClientEvent) => void,
  onStopped: () => void,
) => Promise<() => unknown>;

const fileOf = (adapter: string): string => new URL(`./adapters/${adapter}.ts`, import.meta.url).pathname;
const installed = (path: string): string => new URL(`../../node_modules/${path}`, import.meta.url).pathname;

const startInNode: Start = async ({ adapter }, url, onEvent, onStopped) => {
  const { connect } = (await import(fileOf(adapter))) as { connect: Connect };
  return connect(url, onEvent, onStopped);
};

const startInDeno: Start = async ({ adapter }, url, onEvent, onStopped) => {
  const main = new URL("./run-in-deno.ts", import.meta.url).pathname;
  const child = spawn(installed(".bin/deno"), ["run", "-A", main, fileOf(adapter), url], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  createInterface(child.stdout).on("line", (line) => {
    const event = JSON.parse(line) as ClientEvent | null;
    if (event) onEvent(event);
    else onStopped();
  });
  return () => child.kill("SIGKILL");
};

const bundles = new Map<string, Promise<string>>();

/** Bundles an adapter for pages, with `connect` in the global variable `adapter`. */
function bundleOf(adapter: string): Promise<string> {
  let bundle = bundles.get(adapter);
  if (!bundle) bundles.set(adapter, (bundle = bundleOnce(adapter)));
  return bundle;
}

async function bundleOnce(adapter: string): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [fileOf(adapter)],
    bundle: true,
    write: false,
    format: "iife",
    globalName: "adapter",
    target: "es2023",
  });
  return outputFiles[0]?.text ?? "";
}

const startInChromium =
  (browser: Browser): Start =>
  async ({ adapter, scripts = [] }, url, onEvent, onStopped) => {
    const page = await browser.newPage();
    await page.exposeFunction("report", (event: ClientEvent | null) => (event ? onEvent(event) : onStopped()));
    await page.goto(new URL("/", url).href);
    for (const script of scripts) await page.addScriptTag({ path: installed(script) });
    await page.addScriptTag({ content: await bundleOf(adapter) });
    await page.evaluate((address) => {
      type Globals = { adapter: { connect: Connect }; report(event: ClientEvent | null): void };
      const { adapter, report } = globalThis as unknown as Globals;
      adapter.connect(
        address,
        (event) => report(event),
        () => report(null),
      );
    }, url);
    return () => page.close();
  };

export function startIn(browser: Browser): Start {
  const starts: Record<Runtime, Start> = {
    node: startInNode,
    chromium: startInChromium(browser),
    deno: startInDeno,
  };
  return (adapter, ...rest) => starts[adapter.runtime](adapter, ...rest);
}
