// Chromium's EventSource: what a page receives, and how it reconnects.
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startChromium } from "../support/clients/chromium.ts";
import { CuttableProxy } from "../support/clients/cuttable-proxy.ts";
import { platformsWithWrangler, type Server, startServer, type TestBroker } from "../support/servers/server.ts";

/** Something that the page's EventSource reported. */
interface Seen {
  type: string;
  data?: string;
  id?: string;
}

describe("Chromium's EventSource", () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await startChromium();
  });
  afterAll(() => browser?.close());

  describe.each(platformsWithWrangler)("with %s", (platform) => {
    let server: Server;
    let proxy: CuttableProxy;
    const pages: Page[] = [];
    beforeAll(async () => {
      server = await startServer(platform);
      proxy = new CuttableProxy(server.port);
    });
    afterAll(async () => {
      await Promise.all(pages.map((page) => page.close()));
      proxy?.close();
      server?.stop();
    });

    async function open(broker: TestBroker, query = "", types: string[] = []): Promise<Page> {
      const page = await browser.newPage();
      pages.push(page);
      await page.goto(proxy.url);
      await page.evaluate(
        ([url, ...named]) => {
          const seen: Seen[] = [];
          const source = new EventSource(url as string);
          Object.assign(globalThis, { seen, source });
          source.onopen = () => seen.push({ type: "open" });
          source.onerror = () => seen.push({ type: source.readyState === EventSource.CLOSED ? "closed" : "error" });
          for (const type of ["message", "fanwire-ready", "fanwire-gap", "fanwire-end", ...named]) {
            source.addEventListener(type, ({ data, lastEventId }) => seen.push({ type, data, id: lastEventId }));
          }
        },
        [broker.path(`connect${query}`), ...types],
      );
      return page;
    }

    const seen = (page: Page): Promise<Seen[]> => page.evaluate(() => (globalThis as unknown as { seen: Seen[] }).seen);
    const waitFor = async (page: Page, type: string, times = 1): Promise<Seen[]> => {
      await page.waitForFunction(
        ([wanted, count]) =>
          (globalThis as unknown as { seen: Seen[] }).seen.filter((each) => each.type === wanted).length >=
          Number(count),
        [type, times],
      );
      return (await seen(page)).filter((each) => each.type === type);
    };

    test("EventSource: onopen fires before any event, with and without fanwire-ready", async () => {
      for (const announce of [true, false]) {
        const broker = await server.createBroker({ announce });
        const page = await open(broker);
        await waitFor(page, "open");
        if (announce) await waitFor(page, "fanwire-ready");
        expect((await seen(page)).map(({ type }) => type)).toEqual(announce ? ["open", "fanwire-ready"] : ["open"]);
      }
    });

    test("EventSource: event types, ids, several lines and non-ASCII text arrive unchanged", async () => {
      const broker = await server.createBroker();
      const page = await open(broker, "", ["tick"]);
      await waitFor(page, "fanwire-ready");
      const first = (await (await broker.publish("one\ntwo\r\n\nthree ✓ 😀\n")).json()) as { id: string };
      const second = (await (await broker.publish("{}", "?type=tick")).json()) as { id: string };
      expect(await waitFor(page, "message")).toEqual([
        { type: "message", data: "one\ntwo\n\nthree ✓ 😀\n", id: first.id },
      ]);
      expect(await waitFor(page, "tick")).toEqual([{ type: "tick", data: "{}", id: second.id }]);
    });

    test("EventSource: a connection that breaks before its first event resumes and loses nothing", async () => {
      const broker = await server.createBroker({ retry: 200 });
      const page = await open(broker);
      await waitFor(page, "fanwire-ready");
      proxy.cut();
      await broker.publish("in the pause");
      await waitFor(page, "message");
      await broker.publish("afterwards");
      expect((await waitFor(page, "message", 2)).map(({ data }) => data)).toEqual(["in the pause", "afterwards"]);
      const ready = await waitFor(page, "fanwire-ready", 2);
      expect(ready.map(({ data }) => JSON.parse(data ?? "").resumed)).toEqual([false, true]);
      expect((await seen(page)).filter(({ type }) => type === "fanwire-gap")).toEqual([]);
    });

    test("disconnect(): the client reconnects with its Last-Event-ID", async () => {
      const broker = await server.createBroker({ retry: 200 });
      const page = await open(broker, "?id=me");
      await waitFor(page, "fanwire-ready");
      await broker.publish("before");
      await waitFor(page, "message");
      expect(await broker.control("disconnect", { id: "me" })).toEqual({ clients: 1 });
      await broker.publish("in the pause", "?id=me");
      expect((await waitFor(page, "message", 2)).map(({ data }) => data)).toEqual(["before", "in the pause"]);
      const [end] = await waitFor(page, "fanwire-end");
      expect(JSON.parse(end?.data ?? "")).toEqual({ reason: "disconnected", reconnect: true });
    });

    test("disconnect({ blockFor }): stops an EventSource for good", async () => {
      const broker = await server.createBroker({ retry: 100 });
      const page = await open(broker, "?id=out");
      await waitFor(page, "fanwire-ready");
      await broker.control("disconnect", { id: "out", blockFor: 60_000 });
      await waitFor(page, "closed");
    });

    test("EventSource: two tabs with one client id both receive, and one that closes leaves the other open", async () => {
      const broker = await server.createBroker({ heartbeat: 200 });
      const tabs = [await open(broker, "?id=both"), await open(broker, "?id=both")];
      for (const tab of tabs) await waitFor(tab, "fanwire-ready");
      expect(await (await broker.publish("to both", "?id=both")).json()).toMatchObject({ clients: 2 });
      for (const tab of tabs) expect((await waitFor(tab, "message"))[0]?.data).toBe("to both");
      await tabs[0]?.close();
      await broker.untilState(({ stats }) => stats.clients === 1);
      await broker.publish("to one", "?id=both");
      expect((await waitFor(tabs[1] as Page, "message", 2))[1]?.data).toBe("to one");
    });
  });
});
