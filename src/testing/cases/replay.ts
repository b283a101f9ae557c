// Cases about events of several channels, and about reading the log.
import type { EngineCase } from "../harness.ts";
import { defineCase } from "../support/case-context.ts";
import { type AppendedEvent, checkPage } from "../support/check-page.ts";
import { check, equal } from "../support/expectation.ts";
import type { TestProcess } from "../support/test-process.ts";
import { series } from "./order.ts";

const CHANNELS = ["", "#a", "#b", "#c", "@one"];

/** Returns the members of `all` whose bit is set. */
const subset = (all: readonly string[], bits: number): string[] => all.filter((_, index) => bits & (1 << index));

/** Appends an event to every combination of the channels, in a mixed order. */
async function appendToCombinations(
  process: TestProcess,
  channels: readonly string[] = CHANNELS,
): Promise<AppendedEvent[]> {
  const appended: AppendedEvent[] = [];
  const combinations = 2 ** channels.length;
  for (let index = 1; index < combinations; index++) {
    const bits = (index * 11) % combinations;
    appended.push(await process.append(subset(channels, bits), `event ${index}`));
  }
  return appended;
}

/** Events of several channels, and reading the log. */
export const replayCases: readonly EngineCase[] = [
  defineCase(
    "channels/once",
    "An engine MUST report an event of several subscribed channels once.",
    {},
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess("", "#a", "#b", "@one")];
      await b.subscribe("#b");
      for (const name of series("event ", 10)) await a.append(["", "#a", "#b", "@one"], name);
      await a.append(["#a"], "end");
      await b.waitFor("end");
      equal("what it received", b.receivedData("", "#a", "#b", "@one"), [...series("event ", 10), "end"]);
    },
  ),

  defineCase(
    "channels/previous",
    "An engine MUST judge each channel of an event by itself when it says what was before the event.",
    {},
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess()];
      const appended = await appendToCombinations(a, ["", "#a", "#b"]);
      for (let bits = 1; bits < 8; bits++) {
        const keys = subset(["", "#a", "#b"], bits);
        for (const { seq } of [{ seq: 0 }, ...appended]) {
          const page = await b.read(keys, seq);
          equal("the last dropped position", Math.max(...page.droppedThrough), 0);
          checkPage(page, appended, keys, seq);
        }
      }
    },
  ),

  defineCase(
    "channels/apart",
    "An engine MUST NOT confuse two channels, whatever their names.",
    {},
    async (context) => {
      const long = "#".padEnd(128, "x");
      const names = [
        "",
        "#",
        "@",
        "#a",
        "#A",
        "@a",
        "#a ",
        "#a:b",
        "#a*",
        "#?",
        "#[a]",
        "#{a}",
        "#é",
        "#e\u0301",
        "#😀",
        '#"',
        "#\\",
        "#%23",
        "#__proto__",
      ];
      const keys = [...names, long, `${long}y`];
      const [a, b] = [await context.startProcess(), await context.startProcess(...keys)];
      const appended: AppendedEvent[] = [];
      for (const key of keys) appended.push(await a.append([key], `to ${key}`));
      await b.waitFor(`to ${long}y`);
      for (const key of keys) {
        equal(`what was received of ${key}`, b.receivedData(key), [`to ${key}`]);
        const page = await b.read([key], 0);
        equal(`the number of events to read of ${key}`, page.records.length, 1);
        checkPage(page, appended, [key], 0);
      }
    },
  ),

  defineCase(
    "replay/visible",
    "An engine MUST include an event in the page that any process reads after the append was answered.",
    {},
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess()];
      for (const name of series("event ", 20)) {
        const { seq, text } = await a.append(["#a"], name);
        const { records, through } = await b.read(["#a"], seq - 1);
        equal(
          "the events after the previous position",
          records.map((record) => record.text),
          [text],
        );
        check(through >= seq, "the end of the page", `${seq} or more`, through);
      }
    },
  ),

  defineCase(
    "replay/merged",
    "An engine MUST merge several channels into one page, in the order of positions, each event once.",
    {},
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess()];
      const appended = await appendToCombinations(a);
      const last = appended.at(-1)?.seq ?? 0;
      for (let bits = 1; bits < 2 ** CHANNELS.length; bits++) {
        const keys = subset(CHANNELS, bits);
        for (const after of [0, appended[bits % appended.length]?.seq ?? 0]) {
          const page = await b.read(keys, after);
          check(page.through >= last, "the end of a page that was not cut", `${last} or more`, page.through);
          checkPage(page, appended, keys, after);
        }
      }
    },
  ),

  defineCase(
    "replay/paged",
    "An engine MAY end a page after any event, and MUST NOT say that the page reaches further than its events. A page has at least one event if there is one.",
    {},
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess()];
      const appended: AppendedEvent[] = [];
      const sizes = [10, 100, 2_000, 30_000, 300_000];
      for (const [index, name] of series("event ", 120).entries()) {
        const size = sizes[index % 40 === 7 ? 4 : (index * 7) % 4] as number;
        appended.push(await a.append([`#${index % 4}`], `${name} ${"x".repeat(size)}`));
      }
      const last = appended.at(-1)?.seq ?? 0;
      for (const keys of [["#0", "#1", "#2"], ["#3"]]) {
        const seqs: number[] = [];
        for (let after = 0; after < last; ) {
          const page = await b.read(keys, after);
          checkPage(page, appended, keys, after);
          check(page.through > after, `a page after ${after}`, "to reach further", page.through);
          seqs.push(...page.records.map(({ seq }) => seq));
          after = page.through;
        }
        const expected = appended.filter((event) => event.keys.some((key) => keys.includes(key)));
        equal(
          "all pages together",
          seqs,
          expected.map(({ seq }) => seq),
        );
      }
    },
  ),

  defineCase(
    "replay/nothing",
    "An engine MUST return an empty page up to the head if there is no new event, and MUST NOT count an event as dropped.",
    {},
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess()];
      const { seq } = await a.append(["#a"], "event");
      for (const keys of [["#a"], ["#never"], ["#a", "#never"]]) {
        const { records, through, droppedThrough } = await b.read(keys, seq);
        equal("an empty page", { records, dropped: droppedThrough }, { records: [], dropped: keys.map(() => 0) });
        check(through >= seq, "the end of the page", `${seq} or more`, through);
      }
    },
  ),

  defineCase("replay/kept", "An engine MUST keep its log when processes close.", {}, async (context) => {
    const a = await context.startProcess("#a");
    const appended: AppendedEvent[] = [];
    for (const name of series("event ", 5)) appended.push(await a.append(["#a"], name));
    context.closeProcess(a);
    const b = await context.startProcess();
    appended.push(await b.append(["#a"], "event 6"));
    const page = await b.read(["#a"], 0);
    equal("the number of events to read", page.records.length, 6);
    checkPage(page, appended, ["#a"], 0);
  }),
];
