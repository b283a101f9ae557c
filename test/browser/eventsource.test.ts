import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startChromium } from "../support/clients/chromium.ts";
import { Wire } from "../support/clients/cuttable-proxy.ts";
import { type Server, type Stage, startServer, withWrangler } from "../support/servers/server.ts";

/** What a page saw of its EventSource, in order. */
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

  describe.each(withWrangler)("with %s", (platform) => {
    let server: Server;
    let wire: Wire;
    const pages: Page[] = [];
    beforeAll(async () => {
      server = await startServer(platform);
      wire = new Wire(server.port);
    });
    afterAll(async () => {
      await Promise.all(pages.map((page) => page.close()));
      wire?.close();
      server?.stop();
    });

    async function open(stage: Stage, query = "", types: string[] = []): Promise<Page> {
      const page = await browser.newPage();
      pages.push(page);
      await page.goto(wire.url);
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
        [stage.path(`connect${query}`), ...types],
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

    test("onopen fires before any event, with and without fanwire-ready", async () => {
      for (const announce of [true, false]) {
        const stage = await server.stage({ announce });
        const page = await open(stage);
        await waitFor(page, "open");
        if (announce) await waitFor(page, "fanwire-ready");
        expect((await seen(page)).map(({ type }) => type)).toEqual(announce ? ["open", "fanwire-ready"] : ["open"]);
      }
    });

    test("named events, ids, several lines and what is not ASCII arrive as they were", async () => {
      const stage = await server.stage();
      const page = await open(stage, "", ["tick"]);
      await waitFor(page, "fanwire-ready");
      const first = (await (await stage.publish("one\ntwo\r\n\nthree ✓ 😀\n")).json()) as { id: string };
      const second = (await (await stage.publish("{}", "?type=tick")).json()) as { id: string };
      expect(await waitFor(page, "message")).toEqual([
        { type: "message", data: "one\ntwo\n\nthree ✓ 😀\n", id: first.id },
      ]);
      expect(await waitFor(page, "tick")).toEqual([{ type: "tick", data: "{}", id: second.id }]);
    });

    test("a connection that breaks before its first event resumes and loses nothing", async () => {
      const stage = await server.stage({ retry: 200 });
      const page = await open(stage);
      await waitFor(page, "fanwire-ready");
      wire.cut();
      await stage.publish("in the pause");
      await waitFor(page, "message");
      await stage.publish("afterwards");
      expect((await waitFor(page, "message", 2)).map(({ data }) => data)).toEqual(["in the pause", "afterwards"]);
      const ready = await waitFor(page, "fanwire-ready", 2);
      expect(ready.map(({ data }) => JSON.parse(data ?? "").resumed)).toEqual([false, true]);
      expect((await seen(page)).filter(({ type }) => type === "fanwire-gap")).toEqual([]);
    });

    test("a client that the server ended comes back with its Last-Event-ID", async () => {
      const stage = await server.stage({ retry: 200 });
      const page = await open(stage, "?id=me");
      await waitFor(page, "fanwire-ready");
      await stage.publish("before");
      await waitFor(page, "message");
      expect(await stage.tell("disconnect", { id: "me" })).toEqual({ clients: 1 });
      await stage.publish("in the pause", "?id=me");
      expect((await waitFor(page, "message", 2)).map(({ data }) => data)).toEqual(["before", "in the pause"]);
      const [end] = await waitFor(page, "fanwire-end");
      expect(JSON.parse(end?.data ?? "")).toEqual({ reason: "disconnected", reconnect: true });
    });

    test("disconnect with `for` stops an EventSource for good", async () => {
      const stage = await server.stage({ retry: 100 });
      const page = await open(stage, "?id=out");
      await waitFor(page, "fanwire-ready");
      await stage.tell("disconnect", { id: "out", blockFor: 60_000 });
      await waitFor(page, "closed");
    });

    test("two tabs with one id both receive, and one that closes leaves the other alone", async () => {
      const stage = await server.stage({ heartbeat: 200 });
      const tabs = [await open(stage, "?id=both"), await open(stage, "?id=both")];
      for (const tab of tabs) await waitFor(tab, "fanwire-ready");
      expect(await (await stage.publish("to both", "?id=both")).json()).toMatchObject({ clients: 2 });
      for (const tab of tabs) expect((await waitFor(tab, "message"))[0]?.data).toBe("to both");
      await tabs[0]?.close();
      await stage.until(({ stats }) => stats.clients === 1);
      await stage.publish("to one", "?id=both");
      expect((await waitFor(tabs[1] as Page, "message", 2))[1]?.data).toBe("to one");
    });
  });
});
