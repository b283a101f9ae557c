// The page of the Hono examples: sessions, tickets, and streams that break.
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { startChromium } from "../support/clients/chromium.ts";
import { CuttableProxy } from "../support/clients/cuttable-proxy.ts";
import { honoExamples, type RunningExample, startExample } from "../support/servers/example.ts";

describe.each(honoExamples)("the page of %s", (example) => {
  let browser: Browser;
  let running: RunningExample;
  let proxy: CuttableProxy;
  let context: BrowserContext;
  let page: Page;
  let faults: string[];
  beforeAll(async () => {
    browser = await startChromium();
  });
  beforeEach(async () => {
    running = await startExample(example, { PUBLISH_TOKEN: "t" }, /http:\S+\s/);
    proxy = new CuttableProxy(Number(new URL(running.url).port));
    context = await browser.newContext();
    page = await context.newPage();
    faults = [];
    page.on("pageerror", (error) => faults.push(String(error)));
    await page.goto(proxy.url);
  });
  afterEach(async () => {
    await context.close();
    proxy.close();
    running.child.kill("SIGKILL");
  });
  afterAll(() => browser?.close());

  const STREAMS = ["cookie", "ticket"] as const;
  const connected = async (): Promise<void> => {
    for (const name of STREAMS) await page.waitForSelector(`#${name}-state[data-live]`);
  };
  async function signIn(): Promise<void> {
    await page.fill("#user", "anna");
    await page.click("#login button");
    await connected();
  }
  async function say(text: string): Promise<void> {
    await page.fill("#text", text);
    await page.click("#say button");
  }
  /** Waits until both lists have `count` lines, and returns them. The lists show the newest line first. */
  async function lines(count: number): Promise<string[][]> {
    await page.waitForFunction(
      ([names, count]) =>
        names.every((name) => document.querySelectorAll(`#${name}-events li`).length >= Number(count)),
      [STREAMS, count] as const,
    );
    return Promise.all(
      STREAMS.map(async (name) => (await page.locator(`#${name}-events li`).allTextContents()).reverse()),
    );
  }
  const publish = (data: string): Promise<Response> =>
    fetch(`${running.url}events/broadcast`, { method: "POST", headers: { authorization: "Bearer t" }, body: data });

  test.each([
    ["phone", { width: 390, height: 844 }],
    ["desk", { width: 1280, height: 800 }],
  ])("sign-in: shows messages through the cookie and through a ticket, at %s width", async (_, viewport) => {
    await page.setViewportSize(viewport);
    await signIn();
    await say("hello");
    expect(await lines(1)).toEqual([["anna: hello"], ["anna: hello"]]);
    expect(await page.textContent("#used")).toBe("1");
    expect(await page.evaluate(() => document.cookie)).toBe("");
    expect(await page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth)).toBe(true);
    expect(faults).toEqual([]);
  });

  test("reconnect: a stream that breaks continues, with a new ticket if it needs one, and no event is lost or doubled", async () => {
    await signIn();
    await publish("one");
    await lines(1);
    for (const data of ["two", "three"]) {
      proxy.cut();
      await publish(`${data}, in the pause`);
      await page.waitForFunction(
        (seen) => document.querySelector("#ticket-events li")?.textContent === seen,
        `${data}, in the pause`,
      );
      await connected();
    }
    await publish("four");
    const all = ["one", "two, in the pause", "three, in the pause", "four"];
    expect(await lines(4)).toEqual([all, all]);
    expect(await page.textContent("#used")).toBe("3");
  });

  test("reconnect: a stream that breaks before its first event loses nothing", async () => {
    await signIn();
    await expect.poll(() => proxy.readies).toBe(2);
    proxy.cut();
    await publish("in the pause");
    expect(await lines(1)).toEqual([["in the pause"], ["in the pause"]]);
  });

  test("session: survives a reload, and signing out ends it for good", async () => {
    await signIn();
    await page.reload();
    await connected();
    await page.click("#logout button");
    await page.waitForSelector("#login:not([hidden])");
    await page.reload();
    await page.waitForSelector("#login:not([hidden])");
    expect(faults).toEqual([]);
  });

  test("session: one that ends elsewhere shows the sign-in form", async () => {
    await signIn();
    const [cookie] = await context.cookies();
    expect(cookie).toMatchObject({ httpOnly: true, sameSite: "Strict", secure: false });
    await fetch(`${running.url}logout`, { method: "POST", headers: { cookie: `${cookie?.name}=${cookie?.value}` } });
    await page.waitForSelector("#login:not([hidden])");
  });
});
