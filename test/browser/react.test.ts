// The React hooks with React 18 and 19: in Chromium against a real server, and on the server.
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server as HttpServer } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BuildOptions, build } from "esbuild";
import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Broker, createBroker } from "../../src/index.ts";
import { nodeHandler } from "../../src/node/index.ts";
import { startChromium } from "../support/clients/chromium.ts";
import { skipIf } from "../support/skip.ts";

const root = new URL("../../", import.meta.url).pathname;

interface Globals {
  /** Renders components: each has its props. */
  show(components: readonly Props[], isStrict?: boolean): void;
  log: unknown[];
  errors: string[];
  hydrate(html: string, props: object): void;
  /** A client of the application's own. */
  own: { readonly state: string; close(): void };
}
interface Props {
  readonly key: string;
  readonly url?: string | null;
  readonly channels?: string | readonly string[];
  readonly tag?: string;
  readonly isOwn?: boolean;
}

/** A component that writes down its events, each with the tag of the render whose handler has received it. */
const SCRIPT = `
import { createElement as h, StrictMode } from "react";
import { flushSync } from "react-dom";
import { createRoot, hydrateRoot } from "react-dom/client";
import { connect } from "./src/client/index.ts";
import { useEvents, useLatest } from "./src/react/index.ts";
globalThis.log = [];
globalThis.errors = [];
addEventListener("error", (event) => errors.push(String(event.message)));
function Component({ url = "/connect", channels, tag = "", isOwn }) {
  if (isOwn) url = globalThis.own ??= connect("/connect", { channels: "x" });
  const state = useEvents(url, {
    channels,
    events: ["message", "gap", "error"],
    onEvent: (item) => log.push([tag, item.type === "event" ? item.value : (item.code ?? item.type)].join(":")),
  });
  const latest = useLatest(url, "message", { channels });
  return h("p", { id: tag }, state + " " + latest?.value);
}
globalThis.hydrate = (html, props) => {
  const place = document.body.appendChild(document.createElement("main"));
  place.innerHTML = html;
  hydrateRoot(place, h(Component, props));
};
const root = createRoot(document.body.appendChild(document.createElement("main")));
globalThis.show = (components, isStrict) => {
  const all = components.map(({ key, ...props }) => h(Component, { key, ...props }));
  flushSync(() => root.render(isStrict ? h(StrictMode, null, all) : all));
};
`;

/** Where each version of React is. */
const OLDER = join(root, "test/older/node_modules");
const versions = [
  ["19", join(root, "node_modules")],
  ["18", OLDER],
] as const;

/** Bundles a script for a version of React. */
async function bundle(contents: string, modules: string, more: BuildOptions): Promise<string> {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: root },
    bundle: true,
    write: false,
    target: "es2023",
    // Development, where StrictMode runs effects twice.
    define: { "process.env.NODE_ENV": '"development"' },
    alias: { react: join(modules, "react"), "react-dom": join(modules, "react-dom") },
    ...more,
  });
  return outputFiles?.[0]?.text ?? "";
}

describe.each(versions)("React %s", (version, modules) => {
  const isMissing = !existsSync(join(modules, "react"));
  describe("hooks", skipIf(isMissing && process.env.CI !== "true", "test/older is not installed"), () =>
    hooks(version, modules),
  );
});

function hooks(version: string, modules: string): void {
  let browser: Browser;
  let script: string;
  let page: Page;
  let broker: Broker;
  let server: HttpServer;
  let url: string;
  /** The streams that were opened, by their query, and how many are open. */
  let opened: string[];
  let streams: { open: number };
  /** Changes of channels that were answered. */
  let changes: string[];

  beforeAll(async () => {
    browser = await startChromium();
    script = await bundle(SCRIPT, modules, { format: "iife" });
  });
  afterAll(() => browser?.close());
  beforeEach(async () => {
    broker = createBroker({
      retry: 50,
      authorize: ({ channels }) => !channels.includes("secret"),
    });
    const handle = nodeHandler(broker);
    opened = [];
    // Of this test alone: what ends in the test before may be reported late.
    const counted = { open: 0 };
    const answered: string[] = [];
    streams = counted;
    changes = answered;
    server = createServer((request, response) => {
      if (/^\/(connect|subscribe|unsubscribe)/.test(request.url ?? "")) {
        if (request.url?.startsWith("/connect")) {
          opened.push(decodeURIComponent(request.url.split("?")[1] ?? ""));
          counted.open++;
          response.on("close", () => counted.open--);
        } else {
          response.on("finish", () => answered.push(request.url ?? ""));
        }
        void handle(request, response);
      } else {
        response
          .writeHead(200, { "content-type": "text/html" })
          .end(`<title>page</title><body><script>${script}</script>`);
      }
    }).listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    url = `http://localhost:${(server.address() as AddressInfo).port}/`;
    page = await browser.newPage();
    await page.goto(url);
  });
  afterEach(async () => {
    await page.close();
    await broker.close({ force: true });
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });

  const show = (components: readonly Props[], isStrict = false): Promise<void> =>
    page.evaluate(([all, strict]) => (globalThis as unknown as Globals).show(all, strict), [
      components,
      isStrict,
    ] as const);
  const log = (): Promise<unknown[]> => page.evaluate(() => (globalThis as unknown as Globals).log);
  const text = (tag: string): Promise<string> => page.locator(`#${tag}`).textContent().then(String);
  const isOpen = (tag: string): Promise<unknown> => page.waitForSelector(`#${tag}:text-matches("^open")`);
  const send = (data: string, channels: string): Promise<unknown> => broker.broadcast(data, { channels });
  const both = (a: string, b: string): Promise<void> =>
    show([
      { key: "a", channels: ["kept", a], tag: "a" },
      { key: "b", channels: ["kept", b], tag: "b" },
    ]);
  /** Renders two components with the same channels, and sends them an event. */
  const openBoth = async (): Promise<void> => {
    await both("old", "old");
    await isOpen("b");
    await send("1", "kept");
    await expect.poll(log).toEqual(["a:1", "b:1"]);
  };

  test("useEvents: two components with the same URL and channels have one connection, also in StrictMode", async () => {
    await show(
      [
        { key: "a", channels: ["x", "y"], tag: "a" },
        { key: "b", channels: ["y", "x"], tag: "b" },
      ],
      true,
    );
    await isOpen("a");
    await isOpen("b");
    await send("1", "x");
    await expect.poll(log).toEqual(["a:1", "b:1"]);
    await expect.poll(() => text("a")).toBe("open 1");
    expect([streams.open, opened]).toEqual([1, ["channel=x&channel=y"]]);
  });

  test("useEvents: the handler is that of the last render, and a render does not reconnect", async () => {
    for (const tag of ["a", "b", "c"]) {
      await show([{ key: "1", channels: "x", tag }]);
      await isOpen(tag);
      await send(tag, "x");
      await expect.poll(log).toContain(`${tag}:${tag}`);
    }
    expect(await log()).toEqual(["a:a", "b:b", "c:c"]);
    expect(opened.length).toBe(1);
  });

  test("useEvents: unmounting closes the connection, when the last component is gone", async () => {
    const [a, b] = [
      { key: "a", channels: "x", tag: "a" },
      { key: "b", channels: "x", tag: "b" },
    ];
    await show([a, b]);
    await isOpen("b");
    await show([b]);
    await send("1", "x");
    await expect.poll(log).toEqual(["b:1"]);
    expect(streams.open).toBe(1);
    await show([]);
    await expect.poll(() => streams.open).toBe(0);
    await show([a]);
    await isOpen("a");
    expect([streams.open, opened.length]).toEqual([1, 2]);
  });

  test("useEvents: another list of channels goes on with the same stream, and loses nothing of what stays", async () => {
    await openBoth();
    await both("new", "new");
    await send("2", "kept");
    await expect.poll(() => changes).toEqual(["/subscribe", "/unsubscribe"]);
    await send("3", "new");
    await send("4", "old");
    await send("5", "kept");
    await expect.poll(log).toEqual(["a:1", "b:1", "a:2", "b:2", "a:3", "b:3", "a:5", "b:5"]);
    expect(opened.length).toBe(1);
  });

  test("useEvents: one of two components that moves continues where both were", async () => {
    await openBoth();
    await both("new", "old");
    for (let n = 2; n < 20; n++) await send(`${n}`, "kept");
    const received = async (tag: string): Promise<number> =>
      (await log()).filter((line) => String(line).startsWith(tag)).length;
    // Each has a stream of its own by now.
    await expect.poll(async () => [await received("a"), await received("b")]).toEqual([19, 19]);
    expect(streams.open).toBe(2);
  });

  test("useEvents: another URL is another connection, and useLatest forgets", async () => {
    await show([{ key: "a", channels: "x", tag: "a" }]);
    await isOpen("a");
    await send("1", "x");
    await expect.poll(() => text("a")).toBe("open 1");
    await show([{ key: "a", url: "/connect?from=latest", channels: "x", tag: "a" }]);
    await expect.poll(() => opened.length).toBe(2);
    // From the new stream, which starts at the newest event.
    await expect.poll(log).toEqual(["a:1", "a:1"]);
    await show([{ key: "a", url: "/connect?from=latest", channels: "y", tag: "a" }]);
    await expect.poll(() => text("a")).toBe("open undefined");
    await expect.poll(() => streams.open).toBe(1);
  });

  test("useEvents: a channel that is refused ends the stream with an error, as from the beginning", async () => {
    await show([{ key: "a", channels: "x", tag: "a" }]);
    await isOpen("a");
    await show([{ key: "a", channels: ["x", "secret"], tag: "a" }]);
    await expect.poll(log).toEqual(["a:forbidden"]);
    await expect.poll(() => text("a")).toMatch(/^closed/);
    await show([{ key: "b", channels: ["x", "secret"], tag: "b" }]);
    await expect.poll(log).toEqual(["a:forbidden", "b:forbidden"]);
    await show([{ key: "b", channels: ["x"], tag: "b" }]);
    await isOpen("b");
    await expect.poll(() => streams.open).toBe(1);
  });

  test("useEvents: a client of one's own is left open, and no source is no connection", async () => {
    await show([{ key: "a", url: null, tag: "a" }]);
    expect([await text("a"), opened]).toEqual(["closed undefined", []]);
    await show([{ key: "a", isOwn: true, tag: "a" }], true);
    await isOpen("a");
    await send("1", "x");
    await expect.poll(() => text("a")).toBe("open 1");
    await show([]);
    await page.waitForTimeout(50);
    await show([{ key: "b", isOwn: true, tag: "b" }]);
    // Its state is there in the first render.
    expect(await text("b")).toMatch(/^open/);
    await send("2", "x");
    await expect.poll(log).toEqual(["a:1", "b:2"]);
    expect([streams.open, opened.length]).toEqual([1, 1]);
    await page.evaluate(() => (globalThis as unknown as Globals).own.close());
    await expect.poll(() => text("b")).toMatch(/^closed/);
  });

  test("hydrateRoot(): what the server has rendered fits, and the stream opens then", async () => {
    const complaints: string[] = [];
    page.on("console", (message) => {
      if (message.type() === "error") complaints.push(message.text());
    });
    const html = '<p id="a">connecting undefined</p>';
    await page.evaluate(([given, props]) => (globalThis as unknown as Globals).hydrate(given, props), [
      html,
      { channels: "x", tag: "a" },
    ] as const);
    await isOpen("a");
    await send("1", "x");
    await expect.poll(() => text("a")).toBe("open 1");
    expect([complaints, opened.length]).toEqual([[], 1]);
  });

  test("rooms that change quickly: each event reaches the component of its room", async () => {
    for (let n = 0; n < 20; n++) {
      await show([{ key: "a", channels: `room ${n % 3}`, tag: `t${n % 3}` }], n % 2 === 0);
      await send(`${n % 3}`, `room ${n % 3}`);
    }
    await expect.poll(() => text("t1")).toMatch(/^open/);
    await send("1", "room 1");
    await expect.poll(log).toContain("t1:1");
    for (const line of await log()) expect(line).toMatch(/^t(\d):\1$/);
    await expect.poll(() => streams.open).toBe(1);
    expect(await page.evaluate(() => (globalThis as unknown as Globals).errors)).toEqual([]);
  });

  test("server: renders without a connection", async () => {
    const code = await bundle(
      `import { createElement as h } from "react";
      import { renderToString } from "react-dom/server";
      import { useEvents, useLatest } from "./src/react/index.ts";
      import { version } from "react";
      let requests = 0;
      globalThis.fetch = () => Promise.reject(new Error(String(++requests)));
      function Component({ url }) {
        const state = useEvents(url, { events: "message", onEvent() {} });
        return h("b", null, state, String(useLatest(url, "message")));
      }
      const html = ["/connect", undefined].map((url) => renderToString(h(Component, { url })));
      module.exports = new Promise((resolve) => setTimeout(() => resolve({ version, html, requests }), 50));`,
      modules,
      { format: "cjs", platform: "node" },
    );
    const folder = mkdtempSync(join(tmpdir(), "fanwire-react-"));
    const { fetch, console: output } = globalThis;
    const complaints: unknown[] = [];
    try {
      writeFileSync(join(folder, "server.cjs"), code);
      globalThis.console = { ...output, error: (...all) => complaints.push(all) };
      const result = await createRequire(import.meta.url)(join(folder, "server.cjs"));
      const html = "<b>connecting<!-- -->undefined</b>";
      expect(result).toEqual({ version: expect.stringContaining(`${version}.`), html: [html, html], requests: 0 });
      expect(complaints).toEqual([]);
    } finally {
      Object.assign(globalThis, { fetch, console: output });
      rmSync(folder, { recursive: true });
    }
  });
}
