// The live page of the examples, and the page of `npx fanwire`.
import { type ChildProcess, spawn } from "node:child_process";
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
    expect(await page.evaluate(() => performance.getEntriesByName(`${location.origin}/client.js`).length)).toBe(1);
    expect(await page.textContent("#controls")).toContain("This page starts");
    // The client that shows events, and the three that can be stalled.
    await page.waitForFunction(() => document.querySelector("#clients")?.textContent === "4");
    await page.selectOption("#size", "1024");
    await page.click("#go");
    await page.waitForFunction(() => Number(document.querySelector("#rate")?.textContent) > 5);
    // Client A stops, falls behind, and catches up.
    await page.click(".lane:nth-child(2) button");
    await page.waitForSelector(".lane:nth-child(2)[data-state=stalled]");
    await page.waitForFunction(() => /^−\d/.test(document.querySelector(".lane:nth-child(2) .far")?.textContent ?? ""));
    await page.click("#go");
    await page.click(".lane:nth-child(2) button");
    await page.waitForSelector(".lane:nth-child(2)[data-state=live]");
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

describe("the page of npx fanwire, with a plain EventSource", () => {
  const root = new URL("../../", import.meta.url).pathname;
  let child: ChildProcess | undefined;
  let browser: Browser;
  beforeAll(async () => {
    browser = await startChromium();
  });
  afterEach(() => child?.kill("SIGKILL"));
  afterAll(() => browser?.close());

  /** Starts it, and resolves with its URL. */
  async function start(...more: string[]): Promise<string> {
    const args = [`${root}dist/cli/main.js`, "--open", "--memory", "--publish-token", "t", ...more];
    const { PATH = "" } = process.env;
    child = spawn(`${root}node_modules/.bin/node`, args, { env: { PATH }, stdio: ["ignore", "pipe", "inherit"] });
    let output = "";
    child.stdout?.on("data", (data) => (output += data));
    await expect.poll(() => output, { timeout: 10_000 }).toContain("listening");
    return JSON.parse(output.split("\n").find((line) => line.includes("listening")) ?? "").url;
  }

  test("page: shows events of a channel, comes back after a restart, and shows the gap", async () => {
    const port = String(await freePort());
    const url = await start("--port", port);
    const page = await browser.newPage();
    const errors: string[] = [];
    page.on("pageerror", (error) => errors.push(String(error)));
    await page.goto(url);
    const says = (text: string): Promise<unknown> =>
      page.waitForFunction((wanted) => document.querySelector("#state")?.textContent?.includes(wanted), text);
    const shows = (text: string): Promise<unknown> =>
      page.waitForFunction((wanted) => document.querySelector("#events")?.textContent?.includes(wanted), text);
    await says("connected");
    await page.fill("#read [name=channel]", "news");
    await page.click("#read button");
    await says("connected");
    for (const [name, value] of Object.entries({ token: "t", channel: "news", data: "hello" }))
      await page.fill(`#publish [name=${name}]`, value);
    await page.click("#publish button");
    await says("sent");
    await shows("hello");
    child?.kill("SIGKILL");
    await says("connecting again");
    await start("--port", port);
    await says("connected");
    await shows("a gap");
    await page.fill("#publish [name=data]", "after");
    await page.click("#publish button");
    await shows("after");
    expect(errors).toEqual([]);
    await page.close();
  });
});
