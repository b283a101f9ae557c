import { createServer, type Server as HttpServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { startChromium } from "../support/clients/chromium.ts";
import { platforms, type Server, startServer } from "../support/servers/server.ts";

// What only a browser decides: which page may read and send what, and when an EventSource comes back.

/** What a page adds to its request. */
interface Wish {
  readonly mode?: "no-cors";
  readonly credentials: "include";
  readonly headers?: Record<string, string>;
}

/** A site with an empty page. */
async function startSite(): Promise<{ origin: string; server: HttpServer }> {
  const server = createServer((_, response) => response.setHeader("content-type", "text/html").end("<!doctype html>"));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server };
}

describe.each(platforms)("a browser and %s", (platform) => {
  let browser: Browser;
  let server: Server;
  let friend: { origin: string; server: HttpServer };
  let stranger: { origin: string; server: HttpServer };
  const contexts: BrowserContext[] = [];

  beforeAll(async () => {
    [browser, server, friend, stranger] = await Promise.all([
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
    friend?.server.close();
    stranger?.server.close();
  });

  async function pageOf(origin: string): Promise<Page> {
    const context = await browser.newContext();
    contexts.push(context);
    await context.addCookies([{ name: "session", value: "x", url: server.url }]);
    const page = await context.newPage();
    await page.goto(origin);
    return page;
  }

  /** How an EventSource fares: the first event it gets, or the state it is in when it fails. */
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

  const publish = (page: Page, url: string, init: Wish): Promise<string> =>
    page.evaluate(
      ([url, init]) =>
        fetch(url, { method: "POST", body: "hello", ...init }).then(
          async (answer) =>
            answer.type === "opaque"
              ? "opaque"
              : `${answer.status} ${((await answer.json()) as { clients?: number }).clients}`,
          () => "kept from the page",
        ),
      [url, init] as const,
    );

  test("CORS: pages of named origins read and publish with credentials, others do not", async () => {
    const stage = await server.stage({ cors: { origins: [friend.origin], credentials: true } });
    const [connect, broadcast] = [server.url + stage.path("connect"), server.url + stage.path("broadcast")];
    const [named, other] = [await pageOf(friend.origin), await pageOf(stranger.origin)];
    const withToken: Wish = {
      credentials: "include",
      headers: { authorization: "Bearer secret", "idempotency-key": "1", "content-type": "application/json" },
    };

    expect(await listen(named, connect)).toBe("ready");
    expect(await publish(named, broadcast, withToken)).toBe("200 1");
    expect(await listen(other, connect)).toBe("error 2");
    expect(await publish(other, broadcast, withToken)).toBe("kept from the page");
    expect((await stage.state()).stats.published).toBe(1);
  });

  test("a page of another origin cannot publish with its visitor's cookie", async () => {
    const stage = await server.stage({ publishToken: null, authorize: "everybody" });
    const simple: Wish = { mode: "no-cors", credentials: "include" };
    const page = await pageOf(stranger.origin);
    const own = await pageOf(server.url);

    expect(await publish(page, server.url + stage.path("broadcast"), simple)).toBe("opaque");
    expect((await stage.state()).stats).toMatchObject({ published: 0, failures: { "cross-origin": 1 } });
    expect(await publish(own, stage.path("broadcast"), { credentials: "include" })).toBe("200 0");
    expect((await stage.state()).stats.published).toBe(1);
  });

  test("at capacity: an EventSource stays alive, and gets in when there is room", async () => {
    const stage = await server.stage({ maxClients: 1, retry: 100, heartbeat: 100 });
    const connect = server.url + stage.path("connect");
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

  test('duplicateIds "replace": two tabs with one id do not take the place from each other again and again', async () => {
    const stage = await server.stage({ duplicateIds: "replace", retry: 50 });
    const connect = server.url + stage.path("connect?id=me");
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
    // Many times the retry that others are told.
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect((await stage.state()).stats).toMatchObject({ clients: 1, disconnects: { replaced: 1 } });
  });
});
