// Cases about retention, and about what is reported as dropped.
import type { EngineCase } from "../harness.ts";
import { type CaseContext, defineCase } from "../support/case-context.ts";
import { type AppendedEvent, checkPage, type RetainedCount } from "../support/check-page.ts";
import { equal, until } from "../support/expectation.ts";
import type { TestProcess } from "../support/test-process.ts";
import { series } from "./order.ts";

async function append(
  process: TestProcess,
  names: readonly string[],
  keys: readonly string[],
): Promise<AppendedEvent[]> {
  const appended: AppendedEvent[] = [];
  for (const name of names) appended.push(await process.append(keys, name));
  return appended;
}

/** Waits until a channel has `size` events to read. Every page that is read in the meantime must be correct. */
async function waitForSize(
  context: CaseContext,
  process: TestProcess,
  appended: readonly AppendedEvent[],
  key: string,
  size: number,
): Promise<void> {
  let count = 0;
  await until(
    context.timeout,
    `the number of events to read of ${key}`,
    `to be ${size}`,
    async () => {
      const page = await process.read([key], 0);
      checkPage(page, appended, [key], 0, size);
      count = page.records.length;
      return count === size;
    },
    () => count,
  );
}

/** Retained events, and events that are reported as dropped. */
export const retentionCases: readonly EngineCase[] = [
  defineCase(
    "retention/events",
    "An engine MUST retain as many events of a channel as retention allows, drop the older ones, and report how far it dropped.",
    { retention: { events: 4 } },
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess()];
      const appended = await append(a, series("event ", 10), ["#a"]);
      await waitForSize(context, b, appended, "#a", 4);
      const last = appended.at(5)?.seq;
      equal("the last dropped position", (await b.read(["#a"], 0)).droppedThrough, [last]);
    },
  ),

  defineCase(
    "retention/bytes",
    "An engine MUST NOT retain more bytes of a channel than retention allows, and MUST retain as many events as fit.",
    { retention: { bytes: 2_500 } },
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess()];
      const names = series("", 6).map((digit) => digit.repeat(1_000));
      const appended = await append(a, names, ["#a"]);
      await waitForSize(context, b, appended, "#a", 2);
    },
  ),

  defineCase(
    "retention/age",
    "An engine MUST NOT retain events for longer than retention allows, even if nothing is appended any more.",
    { retention: { age: 150 } },
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess()];
      const appended = await append(a, series("old ", 3), ["#a"]);
      const read = async (): Promise<number> => {
        const page = await b.read(["#a"], 0);
        checkPage(page, appended, ["#a"], 0, 0);
        return page.records.length;
      };
      await until(context.timeout, "the events to read", "to be none", async () => (await read()) === 0);
      const { seq } = (await append(a, ["young"], ["#a"]))[0] as AppendedEvent;
      const { records, droppedThrough } = await b.read(["#a"], seq - 1);
      // On a slow machine the event may be too old by now.
      equal(
        "whether a new event is either in the page or reported as dropped",
        records.length > 0 !== (droppedThrough[0] ?? 0) >= seq,
        true,
      );
    },
  ),

  defineCase(
    "retention/shared",
    "An engine MUST retain an event as long as one of its channels retains it.",
    { retention: { events: 3 } },
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess()];
      const appended = await append(a, ["both"], ["#a", "#b"]);
      appended.push(...(await append(a, series("a ", 5), ["#a"])));
      const both = appended[0]?.seq;
      for (const keys of [["#b"], ["#a", "#b"]]) {
        const page = await b.read(keys, 0);
        equal(`the first event of ${keys.join(" and ")}`, page.records[0]?.seq, both);
        checkPage(page, appended, keys, 0, 3);
      }
      appended.push(...(await append(a, series("b ", 5), ["#b"])));
      await waitForSize(context, b, appended, "#a", 3);
      await waitForSize(context, b, appended, "#b", 3);
    },
  ),

  defineCase(
    "gaps/exact",
    "An engine MUST report for each channel by itself how far it dropped, so that every reader can find out what it missed.",
    { retention: { events: 3 } },
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess()];
      const appended: AppendedEvent[] = [];
      for (let round = 1; round <= 8; round++) {
        appended.push(...(await append(a, [`busy ${round}`], ["#busy"])));
        if (round % 4 === 0) appended.push(...(await append(a, [`quiet ${round}`], ["#quiet"])));
      }
      const retained: RetainedCount = () => 3;
      await waitForSize(context, b, appended, "#busy", 3);
      for (const keys of [["#busy", "#quiet"], ["#quiet", "#busy"], ["#quiet"], ["#busy"]]) {
        for (const { seq } of [{ seq: 0 }, ...appended])
          checkPage(await b.read(keys, seq), appended, keys, seq, retained);
      }
      const busy = appended.filter(({ keys }) => keys[0] === "#busy");
      const { droppedThrough } = await b.read(["#quiet", "#busy"], 0);
      equal("the last dropped positions", droppedThrough, [0, busy.at(-4)?.seq]);
    },
  ),

  defineCase(
    "gaps/emptied",
    "An engine MUST report that a channel dropped events even if nothing of the channel is left.",
    { retention: { age: 100 } },
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess()];
      const appended = await append(a, series("gone ", 3), ["#a"]);
      const last = appended.at(-1)?.seq ?? 0;
      await until(
        context.timeout,
        "the events to read",
        "to be none",
        async () => (await b.read(["#a"], 0)).records.length === 0,
      );
      for (const { seq } of [{ seq: 0 }, ...appended]) {
        const { droppedThrough } = await b.read(["#a"], seq);
        equal(`whether events after ${seq} were dropped`, (droppedThrough[0] ?? 0) > seq, seq < last);
      }
    },
  ),
];
