// The client in Chromium: a page that is loaded again, offline, back and forward, and tabs that share one stream.
import { createServer, type Server as HttpServer, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { build } from "esbuild";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Broker, createBroker } from "../../src/index.ts";
import { nodeHandler } from "../../src/node/index.ts";
import { startChromium } from "../support/clients/chromium.ts";

const TABS = 20;
const KILLS = 10;
/** A host that Chromium takes for another machine, so that a page without TLS is no secure context there. */
const INSECURE = "insecure.example";

/** Service workers, by the way in which they answer a request. */
const WORKERS = {
  "passes the request on": "fetch(event.request)",
  "creates a request like it": "fetch(new Request(event.request))",
  "creates a request of its own": 'fetch(event.request.url, { headers: { accept: "text/event-stream" } })',
};

/** What a server counts. */
interface Streams {
  /** Streams that are open, and the most that were open at a time. */
  open: number;
  most: number;
  opened: number;
}

/** What the pages' script offers. */
interface Globals {
  client: {
    readonly state: string;
    readonly lastEventId: string;
    close(): void;
    subscribe(channel: string): Promise<unknown>;
  };
  seen: string[];
  gaps: unknown[];
  open(options: object): void;
}

/** The pages' script: opens a client, and writes down what it receives. What a page has shown survives a reload, as its position does. */
const SCRIPT = `
import { connect } from "./src/client/index.ts";
import { connect as connectShared } from "./src/client/share.ts";
globalThis.seen = JSON.parse(sessionStorage.getItem("seen") ?? "[]");
globalThis.gaps = [];
const refuse = () => {
  throw new DOMException("The operation is insecure.", "SecurityError");
};
globalThis.open = ({ shared, stored, blocked, ...options }) => {
  const client = (shared ? connectShared : connect)("/connect", {
    channels: "news",
    ...options,
    ...(stored ? { storage: sessionStorage } : {}),
    ...(blocked ? { storage: { getItem: refuse, setItem: refuse } } : {}),
  });
  client.on("message", ({ data }) => {
    seen.push(data);
    if (stored) sessionStorage.setItem("seen", JSON.stringify(seen));
  });
  client.on("gap", (gap) => gaps.push(gap));
  globalThis.client = client;
};
`;

describe("the client in Chromium", () => {
  let browser: Browser;
  let script: string;
  let context: BrowserContext;
  let broker: Broker;
  let server: HttpServer;
  const sockets = new Set<Socket>();
  let url: string;
  let published: string[];
  /** Of this test alone: the end of a stream of the test before may be reported late. */
  let streams: Streams;
  /** The response that a page waits for. The test ends it. */
  let held: ServerResponse | undefined;
  /** What the service worker answers with. */
  let answer: string;
  /** The header field Last-Event-ID of each request. */
  let ids: (string | undefined)[];

  beforeAll(async () => {
    // A process for each tab, so that one can be killed.
    browser = await startChromium(["--renderer-process-limit=100", `--host-resolver-rules=MAP ${INSECURE} 127.0.0.1`]);
    const { outputFiles } = await build({
      stdin: { contents: SCRIPT, resolveDir: new URL("../../", import.meta.url).pathname },
      bundle: true,
      write: false,
      format: "iife",
      target: "es2023",
    });
    script = outputFiles[0]?.text ?? "";
  });
  afterAll(() => browser?.close());

  beforeEach(async () => {
    broker = createBroker({ retry: 50, heartbeat: 1_000 });
    const handle = nodeHandler(broker);
    const counted: Streams = { open: 0, most: 0, opened: 0 };
    streams = counted;
    held = undefined;
    published = [];
    ids = [];
    server = createServer((request, response) => {
      if (request.url?.startsWith("/connect")) {
        counted.opened++;
        counted.most = Math.max(counted.most, ++counted.open);
        ids.push(request.headers["last-event-id"]?.toString());
        response.on("close", () => counted.open--);
        void handle(request, response);
      } else if (request.url === "/worker.js") {
        response.writeHead(200, { "content-type": "text/javascript" }).end(`
          addEventListener("install", () => skipWaiting());
          addEventListener("activate", (event) => event.waitUntil(clients.claim()));
          addEventListener("fetch", (event) => event.respondWith(${answer}));`);
      } else if (request.url === "/hold") {
        held = response;
      } else {
        response.writeHead(200, { "content-type": "text/html" }).end(`<title>page</title><script>${script}</script>`);
      }
    }).listen(0, "127.0.0.1");
    server.on("connection", (socket) => {
      sockets.add(socket);
      socket.on("close", () => sockets.delete(socket));
    });
    await new Promise((resolve) => server.once("listening", resolve));
    url = `http://localhost:${(server.address() as AddressInfo).port}/`;
    context = await browser.newContext();
  });
  afterEach(async () => {
    await context.close();
    await broker.close({ force: true });
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });

  async function openPage(options: object): Promise<Page> {
    const page = await context.newPage();
    await page.goto(url);
    await start(page, options);
    return page;
  }

  async function start(page: Page, options: object): Promise<void> {
    await page.evaluate((given) => (globalThis as unknown as Globals).open(given), options);
    await page.waitForFunction(() => (globalThis as unknown as Globals).client.lastEventId !== "");
  }

  async function publish(count = 1): Promise<void> {
    for (let n = 0; n < count; n++) {
      published.push(String(published.length + 1));
      await broker.broadcast(published.at(-1) as string, { channels: "news" });
    }
  }

  const seen = (page: Page): Promise<string[]> => page.evaluate(() => (globalThis as unknown as Globals).seen);
  const state = (page: Page, wanted: string): Promise<unknown> =>
    page.waitForFunction((each) => (globalThis as unknown as Globals).client.state === each, wanted);

  /** Waits until a page has the last event, and checks that it has each of those from `first` on once, in order. */
  async function hasAll(page: Page, first = 0): Promise<void> {
    await page.waitForFunction((last) => (globalThis as unknown as Globals).seen.at(-1) === last, published.at(-1));
    expect(await seen(page)).toEqual(published.slice(first));
    expect(await page.evaluate(() => (globalThis as unknown as Globals).gaps)).toEqual([]);
  }

  test("storage: a page that is loaded again continues where it was", async () => {
    const page = await openPage({ stored: true });
    await publish(3);
    await hasAll(page);
    for (let round = 0; round < 3; round++) {
      await page.reload();
      await publish(2);
      await start(page, { stored: true });
      await hasAll(page);
    }
  });

  test("offline: waits, and comes back at once when the page is online", async () => {
    const page = await openPage({});
    await publish();
    await hasAll(page);
    await context.setOffline(true);
    // Chromium does not break open connections when it is set offline.
    for (const socket of sockets) socket.destroy();
    await state(page, "waiting");
    await publish(2);
    const before = streams.opened;
    await page.waitForTimeout(500);
    expect(streams.opened).toBe(before);
    await context.setOffline(false);
    await hasAll(page);
  });

  test("back and forward: a page that comes back from the cache continues where it was", async () => {
    const page = await openPage({});
    await publish();
    await hasAll(page);
    await page.goto("about:blank");
    await publish(2);
    await page.goBack();
    // Where the page was not kept, it is a new one.
    const isKept = await page.evaluate(() => "client" in globalThis);
    console.info(`back/forward cache: ${isKept ? "used" : "not used"}`);
    if (!isKept) await start(page, {});
    await publish();
    await hasAll(page, isKept ? 0 : 3);
  });

  test("pagehide and pageshow: the page lets go of its stream, and continues where it was", async () => {
    const page = await openPage({});
    await publish();
    await hasAll(page);
    await page.evaluate(() => dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true })));
    await expect.poll(() => streams.open).toBe(0);
    await publish(2);
    await page.evaluate(() => dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true })));
    await hasAll(page);
  });

  test("share: a tab that comes late begins there, and one that goes takes nothing with it", async () => {
    const first = await openPage({ shared: true });
    await publish(2);
    await hasAll(first);
    const second = await openPage({ shared: true });
    await publish(2);
    await hasAll(second, 2);
    await second.close();
    await publish();
    await hasAll(first);
    expect(streams.most).toBe(1);
  });

  test(`share: ${TABS} tabs on HTTP/1.1 have one stream, and lose and repeat nothing while ${KILLS} leaders are killed`, async () => {
    const tabs: Page[] = [];
    let crashes = 0;
    for (let n = 0; n < TABS; n++) {
      const page = await openPage({ shared: true });
      page.on("crash", () => crashes++);
      tabs.push(page);
    }
    expect(streams).toEqual({ open: 1, most: 1, opened: 1 });
    await publish(5);
    for (let round = 0; round < KILLS; round++) {
      // The first tab in the queue for the lock leads.
      const leader = tabs.shift() as Page;
      const half = publish(10);
      if (round % 2 === 0) await leader.close();
      else await kill(leader);
      await half;
      await publish(10);
      await expect.poll(() => [streams.open, streams.opened]).toEqual([1, round + 2]);
    }
    await publish();
    for (const page of tabs) await hasAll(page);
    expect(crashes).toBe(KILLS / 2);
    console.info(
      `share: ${published.length} events, ${tabs.length} tabs left, most streams at a time: ${streams.most}`,
    );
    // The one that is ending, and the one that takes its place.
    expect(streams.most).toBeLessThanOrEqual(2);
  });

  /** Ends the renderer of a page, without a word to it. */
  async function kill(page: Page): Promise<void> {
    const session = await context.newCDPSession(page);
    const crashed = new Promise((resolve) => page.once("crash", resolve));
    void session.send("Page.crash").catch(() => undefined);
    await crashed;
  }

  test("share: a leader that is frozen hands over, and catches up when it is awake", async () => {
    const first = await openPage({ shared: true });
    const second = await openPage({ shared: true });
    await publish();
    await hasAll(second);
    const session = await context.newCDPSession(first);
    await session.send("Page.setWebLifecycleState", { state: "frozen" });
    await publish(5);
    await hasAll(second);
    await session.send("Page.setWebLifecycleState", { state: "active" });
    await publish();
    await hasAll(first);
    await hasAll(second);
    await expect.poll(() => streams.open).toBe(1);
  });

  test("share: a leader that hangs loses the lock, and catches up when it is awake", async () => {
    // Three heartbeats, so that a late one is not taken for silence.
    const options = { shared: true, silence: 3_000 };
    const first = await openPage(options);
    const second = await openPage(options);
    await publish();
    await hasAll(second);
    // Its code is busy until the other has taken over: a synchronous request lets nothing else run.
    const busy = first.evaluate(() => {
      const request = new XMLHttpRequest();
      request.open("GET", "/hold", false);
      request.send();
    });
    await expect.poll(() => held).toBeDefined();
    await publish(5);
    await hasAll(second);
    held?.end();
    await busy;
    await publish(5);
    await hasAll(first);
    await hasAll(second);
    expect(streams.opened).toBe(2);
    await expect.poll(() => streams.open).toBe(1);
  });

  test.each(Object.entries(WORKERS))("service worker: one that %s", async (_, code) => {
    answer = code;
    const page = await context.newPage();
    await page.goto(url);
    await page.evaluate(async () => {
      const { serviceWorker } = navigator;
      const controlled = new Promise((resolve) => serviceWorker.addEventListener("controllerchange", resolve));
      await serviceWorker.register("/worker.js");
      await controlled;
    });
    await start(page, {});
    await publish(2);
    await hasAll(page);
    for (let round = 1; round <= 3; round++) {
      for (const socket of sockets) socket.destroy();
      await publish(2);
      await hasAll(page);
    }
    console.info(`service worker: ${code} sends Last-Event-ID: ${ids.slice(1).every((id) => id !== undefined)}`);
    expect(ids).toHaveLength(4);
  });

  test("blocked: storage, locks and service workers that throw, as in a sandbox, are like none", async () => {
    await context.addInitScript(() => {
      const denied = new DOMException("The operation is insecure.", "SecurityError");
      const get = (): never => {
        throw denied;
      };
      Object.defineProperty(Navigator.prototype, "serviceWorker", { get });
      Object.defineProperty(LockManager.prototype, "request", { value: () => Promise.reject(denied) });
    });
    const pages = [await openPage({ shared: true, blocked: true }), await openPage({ shared: true, blocked: true })];
    await publish(2);
    for (const page of pages) await hasAll(page);
    for (const socket of sockets) socket.destroy();
    await publish();
    for (const page of pages) await hasAll(page);
    expect(streams.open).toBe(2);
  });

  test("share: outside of secure contexts, where there are no Web Locks, each tab has a stream of its own", async () => {
    url = url.replace("localhost", INSECURE);
    const pages = [await openPage({ shared: true }), await openPage({ shared: true })];
    const secure = await Promise.all(pages.map((page) => page.evaluate(() => [isSecureContext, "locks" in navigator])));
    expect(secure).toEqual([
      [false, false],
      [false, false],
    ]);
    await publish(2);
    for (const socket of sockets) socket.destroy();
    await publish();
    for (const page of pages) await hasAll(page);
    expect(streams.open).toBe(2);
  });

  test("share: without Web Locks each tab has a stream of its own", async () => {
    await context.addInitScript(() => Object.defineProperty(Navigator.prototype, "locks", { value: undefined }));
    const pages = [await openPage({ shared: true }), await openPage({ shared: true })];
    await publish();
    for (const page of pages) await hasAll(page);
    expect(streams.open).toBe(2);
  });
});
