// The page with an answer of a model: it survives a reload, a second tab reads along, a late visitor has it whole, and Stop stops it.
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { answerTo } from "../../examples/bun/answers.ts";
import { startChromium } from "../support/clients/chromium.ts";
import { CuttableProxy } from "../support/clients/cuttable-proxy.ts";
import { llmExamples, type RunningExample, startExample } from "../support/servers/example.ts";

const SIZES = { phone: { width: 390, height: 844 }, desk: { width: 1280, height: 800 } };

describe.each(llmExamples)("the page of examples/%s", (name) => {
  let browser: Browser;
  let running: RunningExample;
  let context: BrowserContext;
  /** Of visitors. */
  let others: BrowserContext[];
  let errors: string[];
  beforeAll(async () => {
    browser = await startChromium();
    running = await startExample(name, {}, /curl .*\n/);
  });
  beforeEach(async () => {
    context = await browser.newContext();
    errors = [];
    others = [];
    watch(context);
  });
  afterEach(() => Promise.all([context, ...others].map((each) => each.close())));
  afterAll(async () => {
    await browser?.close();
    running?.child.kill("SIGKILL");
  });

  /** Collects the errors of all pages. */
  function watch(all: BrowserContext): void {
    all.on("page", (page) => {
      page.on("pageerror", (error) => errors.push(String(error)));
      page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
    });
  }

  /** Opens the page with the token that the example printed, and asks. Resolves when some words are there. */
  async function ask(prompt: string): Promise<Page> {
    const [address = ""] = /http:\S+#token=\S+/.exec(running.output) ?? [];
    const page = await context.newPage();
    await page.goto(address);
    expect(page.url()).not.toContain("token");
    await page.fill("#prompt", prompt);
    await page.click("#ask button");
    await untilWords(page, 5);
    return page;
  }

  const untilWords = (page: Page, count: number): Promise<unknown> =>
    page.waitForFunction((words) => Number(document.querySelector("#count")?.textContent) >= words, count);
  const untilState = (page: Page, state: string): Promise<unknown> =>
    page.waitForFunction((name) => document.querySelector("#state")?.textContent === name, state);
  const textOf = (page: Page): Promise<string | null> => page.textContent("#text");

  /** Opens an answer as somebody without the token. */
  async function visit(url: string): Promise<Page> {
    const other = await browser.newContext();
    others.push(other);
    watch(other);
    const page = await other.newPage();
    await page.goto(url);
    return page;
  }

  test("an answer: a reload in the middle, a second tab and a late visitor have each word once, and its end", async () => {
    const page = await ask("What survives?");
    await page.reload();
    const [tab] = await Promise.all([context.waitForEvent("page"), page.click("#second")]);
    await untilWords(page, 10);
    await page.reload();

    await untilState(page, "ended");
    await untilState(tab, "ended");
    const late = await visit(page.url());
    await untilState(late, "ended");
    const whole = answerTo("What survives?");
    expect([await textOf(page), await textOf(tab), await textOf(late)]).toEqual([whole, whole, whole]);
    const words = String(whole.match(/\s*\S+/g)?.length);
    for (const reader of [page, tab, late]) expect(await reader.textContent("#count")).toBe(words);
    expect(errors).toEqual([]);
  });

  test("Stop: in a second tab it stops the model, and all readers have the same words and the same end", async () => {
    // A long question makes a long answer.
    const prompt = "why ".repeat(50).trim();
    const page = await ask(prompt);
    const [tab] = await Promise.all([context.waitForEvent("page"), page.click("#second")]);
    await untilWords(tab, 5);
    await tab.click("#stop");

    await untilState(page, "stopped");
    await untilState(tab, "stopped");
    const late = await visit(page.url());
    await untilState(late, "stopped");
    const text = (await textOf(page)) ?? "";
    expect([await textOf(tab), await textOf(late)]).toEqual([text, text]);
    expect(answerTo(prompt).startsWith(text)).toBe(true);
    expect(text.length).toBeLessThan(answerTo(prompt).length);
    expect(errors).toEqual([]);
  });

  test("a connection that is cut: the page comes back for the rest, and has each word once", async () => {
    const proxy = new CuttableProxy(Number(new URL(running.url).port));
    const asked = await ask("What if it breaks?");
    const page = await visit(`${proxy.url}/${new URL(asked.url()).search}`);
    await untilWords(page, 5);
    proxy.cut();
    await untilState(page, "waiting");
    await untilState(page, "ended");
    expect(await textOf(page)).toBe(answerTo("What if it breaks?"));
    proxy.close();
  });

  test("a closed page stops nothing: its answer is complete without a reader", async () => {
    const page = await ask("Who reads?");
    const url = page.url();
    await page.close();
    const { host, searchParams } = new URL(url);
    // A reader who starts at the end sees only the end of the run.
    const response = await fetch(`http://${host}/answers/${searchParams.get("answer")}?offset=now`);
    expect(await response.text()).toContain("data: ended\n\n");
    const late = await visit(url);
    await untilState(late, "ended");
    expect(await textOf(late)).toBe(answerTo("Who reads?"));
  });

  test.each(Object.entries(SIZES))(
    "a visitor without the token cannot stop an answer, at %s width",
    async (_, viewport) => {
      const page = await ask("May I?");
      const visitor = await visit(page.url());
      await visitor.setViewportSize(viewport);
      await untilWords(visitor, 5);
      expect(await visitor.isVisible("#key")).toBe(false);
      await visitor.click("#stop");
      await visitor.waitForSelector("#key", { state: "visible" });
      expect(await visitor.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth)).toBe(true);
      await untilState(visitor, "ended");
      expect(await textOf(visitor)).toBe(answerTo("May I?"));
    },
  );

  test("an answer that is not known: the page says so", async () => {
    const page = await visit(`${running.url}?answer=none`);
    await untilState(page, "unknown");
  });
});
