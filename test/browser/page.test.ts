// The live page of the examples.
import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { startChromium } from "../support/clients/chromium.ts";
import { newDatabasePath } from "../support/engines/database-path.ts";
import { examples, type RunningExample, startExample } from "../support/servers/example.ts";
import { freePort } from "../support/servers/server.ts";

const SIZES = { phone: { width: 390, height: 844 }, desk: { width: 1280, height: 800 } };

describe.each(examples)("the live page of examples/%s", (name) => {
  let browser: Browser;
  let running: RunningExample;
  let page: Page;
  beforeAll(async () => {
    browser = await startChromium();
  });
  afterEach(async () => {
    await page.close();
    running.child.kill("SIGKILL");
  });
  afterAll(() => browser?.close());

  test.each(Object.entries(SIZES))("page: connects, publishes and shows events, at %s width", async (_, viewport) => {
    running = await startExample(name, {}, /curl .*\n/);
    const [address = ""] = /http:\S+#token=\S+/.exec(running.output) ?? [];
    page = await browser.newPage({ viewport });
    const errors: string[] = [];
    page.on("pageerror", (error) => errors.push(String(error)));
    page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
    await page.goto(address);
    await page.waitForFunction(() => document.querySelector("#state")?.textContent === "connected");
    await page.fill("#text", "seen by a person");
    await page.click("#single button");
    await page.waitForFunction(() => document.querySelector("#events")?.textContent?.includes("seen by a person"));
    // The EventSource of the page, and the three clients that can be stalled.
    await page.waitForFunction(() => document.querySelector("#clients")?.textContent === "4");
    await page.click("#go");
    await page.waitForFunction(() => Number(document.querySelector("#rate")?.textContent) > 5);
    expect(await page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth)).toBe(true);
    expect(errors).toEqual([]);
    // The page removes the token from its address.
    expect(page.url()).not.toContain("token");
  });
});

test("the live page of npm start: a server that is killed and started again loses nothing", async () => {
  const browser = await startChromium();
  const page = await browser.newPage();
  const env = { PUBLISH_TOKEN: "t", PORT: String(await freePort()), FANWIRE_FILE: newDatabasePath() };
  const start = (): Promise<RunningExample> => startExample("bun", env, /http:\S+\s/);
  let running = await start();
  const publish = async (body: string): Promise<void> => {
    const headers = { authorization: "Bearer t", connection: "close" };
    expect((await fetch(`${running.url}broadcast`, { method: "POST", headers, body })).status).toBe(200);
    await page.waitForFunction((text) => document.querySelector("#events")?.textContent?.includes(text), body);
  };
  try {
    await page.goto(running.url);
    await page.waitForFunction(() => document.querySelector("#state")?.textContent === "connected");
    await publish("before the crash");
    await page.waitForSelector("#restart:not([hidden])");
    running.child.kill("SIGKILL");
    await page.waitForFunction(() => document.querySelector("#state")?.textContent !== "connected");
    running = await start();
    await publish("after the crash");
    const kinds = await page.$$eval("#controls .kind", (elements) => elements.map((element) => element.textContent));
    expect(kinds).not.toContain("gap");
    expect(await page.textContent("#controls")).toContain("goes on after");
    expect(await page.textContent("#events")).toContain("before the crash");
  } finally {
    await browser.close();
    running.child.kill("SIGKILL");
  }
});
