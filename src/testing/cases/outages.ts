// Cases about lost messages, lost answers and logs that are away.
import type { EngineCase } from "../harness.ts";
import { defineCase } from "../support/case-context.ts";
import { type AppendedEvent, checkPage } from "../support/check-page.ts";
import { equal, expectRejection, retryWhileDown, until } from "../support/expectation.ts";
import type { TestProcess } from "../support/test-process.ts";
import { series } from "./order.ts";

/** Appends events, each after the answer to the one before. */
async function append(
  process: TestProcess,
  names: readonly string[],
  keys: readonly string[] = ["#a"],
): Promise<AppendedEvent[]> {
  const appended: AppendedEvent[] = [];
  for (const name of names) appended.push(await process.append(keys, name));
  return appended;
}

/** Messages and answers that are lost, and logs that are away. Faults of a feed concern process 1, counted from 0. */
export const outageCases: readonly EngineCase[] = [
  defineCase(
    "outcome/unknown",
    "An engine MUST reject with publish-outcome-unknown an append whose answer is lost, and MUST NOT append it twice.",
    { needs: ["loseReply"], idempotencyWindow: 60_000 },
    async (context) => {
      const process = await context.startProcess("#a");
      await append(process, ["before"]);
      await context.fault("loseReply")();
      const lost = process.append(["#a"], "perhaps", "key");
      await expectRejection(context.timeout, "the append whose answer is lost", lost, ["publish-outcome-unknown"]);
      const again = await process.appendOnceUp(["#a"], "perhaps", "key");
      equal("whether the event was already appended", again.repeated, true);
      await process.appendOnceUp(["#a"], "end");
      await process.waitFor("end");
      equal("what it received", process.knownData("#a"), ["before", "perhaps", "end"]);
    },
  ),

  defineCase(
    "outage/said",
    "An engine MUST report the state down while nothing can be appended, and up afterwards.",
    { needs: ["goAway", "comeBack"] },
    async (context) => {
      const process = await context.startProcess("#a");
      await context.fault("goAway")();
      await until(context.timeout, "the state", "to be down", () => !process.isUp);
      await context.fault("comeBack")();
      await process.waitUntilUp();
      await append(process, ["afterwards"]);
    },
  ),

  defineCase(
    "outage/refused",
    "An engine MUST reject with engine-down at once while its log is away, and MUST NOT append a rejected event later.",
    { needs: ["goAway", "comeBack"] },
    async (context) => {
      const process = await context.startProcess("#a");
      await append(process, ["before"]);
      await context.fault("goAway")();
      const codes = ["engine-down", "publish-outcome-unknown"];
      // The engine may find out through this event, and then cannot know its outcome.
      const first = await expectRejection(context.timeout, "the first append", process.append(["#a"], "first"), codes);
      await until(context.timeout, "the state", "to be down", () => !process.isUp);
      for (const name of series("refused ", 3))
        await expectRejection(context.timeout, "an append", process.append(["#a"], name), ["engine-down"]);
      await context.fault("comeBack")();
      await process.waitUntilUp();
      await append(process, ["end"]);
      await process.waitFor("end");
      const received = process.knownData("#a").filter((data) => data !== "first" || first === "engine-down");
      equal("what it received", received, ["before", "end"]);
    },
  ),

  defineCase(
    "outage/healed",
    "An engine MUST report every event of all subscribed channels again once its log is back.",
    { needs: ["goAway", "comeBack"] },
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess("#a", "@one")];
      const appended = await append(a, series("before ", 3));
      await context.fault("goAway")();
      await until(context.timeout, "both states", "to be down", () => !a.isUp && !b.isUp);
      await context.fault("comeBack")();
      await Promise.all([a.waitUntilUp(), b.waitUntilUp()]);
      appended.push(...(await append(a, series("after ", 3))), ...(await append(a, ["end"], ["@one"])));
      await b.waitFor("end");
      const expected = [...series("before ", 3), ...series("after ", 3), "end"];
      equal("what it received", b.knownData("#a", "@one"), expected);
      b.checkOrder(appended, "#a", "@one");
      checkPage(await b.read(["#a", "@one"], 0), appended, ["#a", "@one"], 0);
    },
  ),

  defineCase(
    "feed/cut",
    "An engine MUST report every event that was appended while its feed was cut, in order, once it has a new feed.",
    { needs: ["cutFeed"] },
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess("#a")];
      const appended = await append(a, ["before"]);
      await b.waitFor("before");
      const cut = context.fault("cutFeed");
      for (let round = 1; round <= 3; round++) {
        await cut(1);
        appended.push(...(await append(a, series(`after cut ${round}: `, 3))));
      }
      await b.waitFor("after cut 3: 3");
      const all = [1, 2, 3].flatMap((round) => series(`after cut ${round}: `, 3));
      equal("what it received", b.knownData("#a"), ["before", ...all]);
      b.checkOrder(appended, "#a");
    },
  ),

  defineCase(
    "feed/told-up-to-head",
    "log.head MUST NOT pass an event of a subscribed channel that was not reported.",
    { needs: ["cutFeed"] },
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess("#a")];
      const cut = context.fault("cutFeed");
      const appended: AppendedEvent[] = [];
      for (const name of series("event ", 10)) {
        await cut(1);
        appended.push(await a.append(["#a"], name));
        equal("events before the head that were not reported", b.unreported(appended), []);
      }
      await b.waitFor("event 10");
      equal("what it received", b.knownData("#a"), series("event ", 10));
    },
  ),

  defineCase(
    "feed/cut-while-busy",
    "An engine MUST NOT lose, repeat or reorder events when its feed is cut between them.",
    { needs: ["cutFeed"] },
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess("#a", "#b")];
      const names = series("event ", 60);
      const appended: AppendedEvent[] = [];
      const cut = context.fault("cutFeed");
      for (const [index, name] of names.entries()) {
        appended.push(await a.append([index % 3 ? "#a" : "#b"], name));
        if (index % 20 === 10) await cut(1);
      }
      await b.waitFor("event 60");
      equal("what it received", b.knownData("#a", "#b"), names);
      b.checkOrder(appended, "#a", "#b");
    },
  ),

  defineCase(
    "feed/subscribed-while-cut",
    "An engine MUST subscribe a new feed to every channel, including channels that were subscribed while there was no feed.",
    { needs: ["cutFeed"] },
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess("#a")];
      await context.fault("cutFeed")(1);
      // The engine may refuse a subscription while it has no feed.
      await retryWhileDown(context.timeout, "subscribing", async () => ({ done: await b.subscribe("#b") }));
      await append(a, ["of both"], ["#b", "#a"]);
      await append(a, ["of the new one"], ["#b"]);
      await append(a, ["of the old one"], ["#a"]);
      await b.waitFor("of the new one");
      await b.waitFor("of the old one");
      equal("what it received", b.knownData("#a", "#b"), ["of both", "of the new one", "of the old one"]);
    },
  ),

  defineCase(
    "feed/swallowed",
    "An engine MUST report an event whose message vanished before the next event of that channel.",
    { needs: ["swallowFeed"] },
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess("#a", "#b")];
      const appended = await append(a, ["before"]);
      await b.waitFor("before");
      const undo = await context.fault("swallowFeed")(1);
      appended.push(...(await append(a, series("vanished ", 2), ["#a", "#b"])));
      await undo();
      appended.push(...(await append(a, ["after"])));
      await b.waitFor("after");
      equal("what it received", b.knownData("#a", "#b"), ["before", ...series("vanished ", 2), "after"]);
      b.checkOrder(appended, "#a", "#b");
    },
  ),

  defineCase(
    "feed/last-message-vanished",
    "An engine MUST notice by itself that a message vanished, even if it was the last one of its channel and nothing else shows it.",
    { needs: ["swallowFeed"] },
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess("#a", "@one")];
      await append(a, ["before"]);
      await b.waitFor("before");
      for (const key of ["#a", "@one"]) {
        const undo = await context.fault("swallowFeed")(1);
        await append(a, [`the last of ${key}`], [key]);
        await undo();
        await b.waitFor(`the last of ${key}`);
      }
      equal("what it received", b.knownData("#a", "@one"), ["before", "the last of #a", "the last of @one"]);
    },
  ),

  defineCase(
    "feed/half-open",
    "An engine MUST notice that nothing arrives through its feed any more, and connect another.",
    { needs: ["swallowFeed"] },
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess("#a")];
      const undo = await context.fault("swallowFeed")(1);
      try {
        await append(a, ["vanished"]);
        await b.waitFor("vanished");
        await append(a, series("after ", 3));
        await b.waitFor("after 3");
        equal("what it received", b.knownData("#a"), ["vanished", ...series("after ", 3)]);
      } finally {
        await undo();
      }
    },
  ),
];
