// Decisions of a browser: which page may read and send what, and when an EventSource reconnects.
import { createServer, type Server as HttpServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { startChromium } from "../support/clients/chromium.ts";
import { platforms, type Server, startServer } from "../support/servers/server.ts";

/** Additions of a page to its request. */
interface PageRequest {
  readonly mode?: "no-cors";
  readonly credentials: "include";
  readonly headers?: Record<string, string>;
}

/** Starts a site with an empty page. */
async function startSite(): Promise<{ origin: string; server: HttpServer }> {
  const server = createServer((_, response) => response.setHeader("content-type", "text/html").end("<!doctype html>"));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server };
}

describe.each(platforms)("Chromium and %s", (platform) => {
  let browser: Browser;
  let server: Server;
  let listedSite: { origin: string; server: HttpServer };
  let otherSite: { origin: string; server: HttpServer };
  const contexts: BrowserContext[] = [];

  beforeAll(async () => {
    [browser, server, listedSite, otherSite] = await Promise.all([
      startChromium(),
      startServer(platform),
      startSite(),
      startSite(),
    ]);
  });
  afterEach(async () => {
    for (const context of contexts.splice(0)) await context.close();
  });
  afterAll(async () => {
    await browser?.close();
    server?.stop();
    listedSite?.server.close();
    otherSite?.server.close();
  });

  async function pageOf(origin: string): Promise<Page> {
    const context = await browser.newContext();
    contexts.push(context);
    await context.addCookies([{ name: "session", value: "x", url: server.url }]);
    const page = await context.newPage();
    await page.goto(origin);
    return page;
  }

  /** Opens an EventSource. Resolves with "ready", or with its state when it fails. */
  const listen = (page: Page, url: string): Promise<string> =>
    page.evaluate(
      (url) =>
        new Promise<string>((resolve) => {
          const source = new EventSource(url, { withCredentials: true });
          source.addEventListener("fanwire-ready", () => resolve("ready"));
          source.onerror = () => resolve(`error ${source.readyState}`);
        }),
      url,
    );

  const publish = (page: Page, url: string, init: PageRequest): Promise<string> =>
    page.evaluate(
      ([url, init]) =>
        fetch(url, { method: "POST", body: "hello", ...init }).then(
          async (answer) =>
            answer.type === "opaque"
              ? "opaque"
              : `${answer.status} ${((await answer.json()) as { clients?: number }).clients}`,
          () => "hidden from the page",
        ),
      [url, init] as const,
    );

  test("cors: pages of listed origins read and publish with credentials, others do not", async () => {
    const broker = await server.createBroker({ cors: { origins: [listedSite.origin], credentials: true } });
    const [connect, broadcast] = [server.url + broker.path("connect"), server.url + broker.path("broadcast")];
    const [named, other] = [await pageOf(listedSite.origin), await pageOf(otherSite.origin)];
    const withToken: PageRequest = {
      credentials: "include",
      headers: { authorization: "Bearer secret", "idempotency-key": "1", "content-type": "application/json" },
    };

    expect(await listen(named, connect)).toBe("ready");
    expect(await publish(named, broadcast, withToken)).toBe("200 1");
    expect(await listen(other, connect)).toBe("error 2");
    expect(await publish(other, broadcast, withToken)).toBe("hidden from the page");
    expect((await broker.state()).stats.published).toBe(1);
  });

  test("broadcast: a page of another origin cannot publish with its visitor's cookie", async () => {
    const broker = await server.createBroker({ publishToken: null, authorize: "everybody" });
    const simple: PageRequest = { mode: "no-cors", credentials: "include" };
    const page = await pageOf(otherSite.origin);
    const own = await pageOf(server.url);

    expect(await publish(page, server.url + broker.path("broadcast"), simple)).toBe("opaque");
    expect((await broker.state()).stats).toMatchObject({ published: 0, failures: { "cross-origin": 1 } });
    expect(await publish(own, broker.path("broadcast"), { credentials: "include" })).toBe("200 0");
    expect((await broker.state()).stats.published).toBe(1);
  });

  test("maxClients: an EventSource stays alive, and connects when there is a free slot", async () => {
    const broker = await server.createBroker({ maxClients: 1, retry: 100, heartbeat: 100 });
    const connect = server.url + broker.path("connect");
    const first = await pageOf(server.url);
    expect(await listen(first, connect)).toBe("ready");
    const second = await pageOf(server.url);
    const outcome = second.evaluate(
      (url) =>
        new Promise<string>((resolve) => {
          const ends: string[] = [];
          const source = new EventSource(url);
          source.addEventListener("fanwire-end", ({ data }) => {
            ends.push(JSON.parse(data).reason);
            if (ends.length === 2) document.title = "waits";
          });
          source.addEventListener("fanwire-ready", () => resolve(ends[0] ?? "at once"));
          source.onerror = () => source.readyState === 2 && resolve("dead");
        }),
      connect,
    );
    await second.waitForFunction(() => document.title === "waits");

    await first.close();

    expect(await outcome).toBe("at-capacity");
  });

  test('duplicateIds "replace": two tabs with one client id do not replace each other again and again', async () => {
    const broker = await server.createBroker({ duplicateIds: "replace", retry: 50 });
    const connect = server.url + broker.path("connect?id=me");
    const [first, second] = [await pageOf(server.url), await pageOf(server.url)];
    const reason = first.evaluate(
      (url) =>
        new Promise<string>((resolve) => {
          const source = new EventSource(url);
          source.addEventListener("fanwire-ready", () => (document.title = "ready"));
          source.addEventListener("fanwire-end", ({ data }) => resolve(JSON.parse(data).reason));
        }),
      connect,
    );
    await first.waitForFunction(() => document.title === "ready");

    expect(await listen(second, connect)).toBe("ready");

    expect(await reason).toBe("replaced");
    // Much longer than the reconnection time of other ends.
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect((await broker.state()).stats).toMatchObject({ clients: 1, disconnects: { replaced: 1 } });
  });
});
