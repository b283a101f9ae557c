// Cases about subscriptions, idempotency keys and closing.
import type { EngineCase } from "../harness.ts";
import { defineCase } from "../support/case-context.ts";
import { type AppendedEvent, checkPage } from "../support/check-page.ts";
import { check, equal, expectRejection } from "../support/expectation.ts";
import type { AppendAnswer } from "../support/test-process.ts";
import { series } from "./order.ts";

const idOf = ({ epoch, seq }: AppendAnswer): string => `${epoch}-${seq}`;

/** Subscriptions, idempotency keys, and sessions that close. */
export const sessionCases: readonly EngineCase[] = [
  defineCase(
    "subscribe/certain",
    "An engine MUST NOT resolve subscribe before every later event of these channels is certain to be reported.",
    {},
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess()];
      for (let round = 1; round <= 20; round++) {
        await b.subscribe(`#${round}`, `@${round}`);
        await a.append([`${round % 2 ? "#" : "@"}${round}`], `event ${round}`);
      }
      for (const name of series("event ", 20)) await b.waitFor(name);
    },
  ),

  defineCase(
    "subscribe/then-read",
    "An engine MUST include an event that was appended before subscribe resolved in a page that is read afterwards.",
    {},
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess()];
      const appended: AppendedEvent[] = [await a.append(["#a"], "before")];
      checkPage(await b.read(["#a"], 0), appended, ["#a"], 0);
      const subscribing = b.subscribe("#a");
      const inBetween = await a.append(["#a"], "in between");
      appended.push(inBetween);
      await subscribing;
      const page = await b.read(["#a"], 0);
      equal(
        "the events in the page",
        page.records.map(({ text }) => text),
        appended.map(({ text }) => text),
      );
      check(page.through >= inBetween.seq, "the end of the page", `${inBetween.seq} or more`, page.through);
    },
  ),

  defineCase(
    "subscribe/no-seam",
    "An engine MUST include every event in a page that is read after subscribe, or report it, while others append.",
    {},
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess()];
      const appended: AppendedEvent[] = [];
      for (let round = 1; round <= 8; round++) {
        const key = `#${round}`;
        const mine: AppendedEvent[] = [];
        const appending = (async () => {
          for (const name of series(`${key}: `, 25)) mine.push(await a.append([key], name));
        })();
        while (mine.length < 5) await b.read([key], 0);
        await b.subscribe(key);
        const page = await b.read([key], 0);
        await appending;
        appended.push(...mine);
        checkPage(page, appended, [key], 0);
        await b.waitFor(`${key}: 25`);
        const reported = b.received(key).map(({ seq }) => seq);
        const known = new Set([...page.records.map(({ seq }) => seq), ...reported]);
        const missing = mine.filter(({ seq }) => !known.has(seq)).map(({ seq }) => seq);
        equal("events that are neither in the page nor reported", missing, []);
        equal(
          "reported positions, each once and in order",
          reported,
          [...new Set(reported)].sort((x, y) => x - y),
        );
      }
    },
  ),

  defineCase(
    "subscribe/counted",
    "An engine MUST report the events of a channel until every subscribe was undone by an unsubscribe.",
    {},
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess("#a")];
      await b.subscribe("#a", "#b");
      b.unsubscribe("#a");
      await a.append(["#a"], "while one subscription is left");
      await b.waitFor("while one subscription is left");
      b.unsubscribe("#a", "#b");
      await a.append(["#a"], "while no subscription is left");
      await b.subscribe("#a");
      await a.append(["#a"], "subscribed again");
      await b.waitFor("subscribed again");
    },
  ),

  defineCase(
    "nonces/once",
    "An engine MUST append an event with the same idempotency key once, and answer with the first position again.",
    { idempotencyWindow: 60_000 },
    async (context) => {
      const process = await context.startProcess("#a");
      const first = await process.append(["#a"], "event", "key");
      equal("whether the first answer is repeated", first.repeated, false);
      for (let time = 0; time < 3; time++) {
        const again = await process.append(["#a"], "event", "key");
        equal("the answer to the same key", [idOf(again), again.repeated], [idOf(first), true]);
        await process.append(["#a"], `between ${time}`);
      }
      await process.append(["#a"], "end");
      await process.waitFor("end");
      equal("what it received", process.receivedData("#a"), ["event", "between 0", "between 1", "between 2", "end"]);
    },
  ),

  defineCase(
    "nonces/processes",
    "An engine MUST know an idempotency key in every process, even after the process that used it has closed.",
    { idempotencyWindow: 60_000 },
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess("#a")];
      const first = await a.append(["#a", "#b"], "event", "key");
      context.closeProcess(a);
      const again = await b.append(["#b", "#a"], "event", "key");
      equal("the answer in another process", [idOf(again), again.repeated], [idOf(first), true]);
      await b.append(["#a"], "end");
      await b.waitFor("end");
      equal("what it received", b.receivedData("#a"), ["event", "end"]);
    },
  ),

  defineCase(
    "nonces/at-once",
    "An engine MUST append an event with one idempotency key once, even if it is appended several times at the same moment.",
    { idempotencyWindow: 60_000 },
    async (context) => {
      const processes = [await context.startProcess("#a"), await context.startProcess("#a")];
      const appending = Array.from({ length: 10 }, () =>
        processes.map((process) => process.append(["#a"], "event", "key")),
      );
      const answers = await Promise.all(appending.flat());
      equal("the number of positions", new Set(answers.map(idOf)).size, 1);
      equal("the number of answers that are not repeated", answers.filter(({ repeated }) => !repeated).length, 1);
      await processes[0]?.append(["#a"], "end");
      for (const process of processes) {
        await process.waitFor("end");
        equal("what it received", process.receivedData("#a"), ["event", "end"]);
      }
    },
  ),

  defineCase(
    "nonces/other-event",
    "An engine MUST refuse an event that has the idempotency key of another event with key-reused.",
    { idempotencyWindow: 60_000 },
    async (context) => {
      const process = await context.startProcess("#a", "#b");
      await process.append(["#a"], "event", "key");
      for (const [key, data] of [
        ["#a", "another"],
        ["#b", "event"],
      ] as const)
        await expectRejection(context.timeout, `appending ${data} to ${key}`, process.append([key], data, "key"), [
          "key-reused",
        ]);
      await process.append(["#a", "#b"], "end");
      await process.waitFor("end");
      equal("what it received", process.receivedData("#a", "#b"), ["event", "end"]);
    },
  ),

  defineCase(
    "nonces/apart",
    "An engine MUST append an event again if it has another idempotency key, or none.",
    { idempotencyWindow: 60_000 },
    async (context) => {
      const process = await context.startProcess("#a");
      const keys = ["one", "One", "one ", undefined, undefined];
      const answers = [];
      for (const key of keys) answers.push(await process.append(["#a"], "event", key));
      equal("the number of positions", new Set(answers.map(idOf)).size, keys.length);
      equal(
        "whether the answers are repeated",
        answers.map(({ repeated }) => repeated),
        keys.map(() => false),
      );
    },
  ),

  defineCase(
    "close/silent",
    "An engine MUST NOT call a listener after its session was closed.",
    {},
    async (context) => {
      const [a, b, c] = [
        await context.startProcess(),
        await context.startProcess("#a"),
        await context.startProcess("#a"),
      ];
      await a.append(["#a"], "before");
      await b.waitFor("before");
      context.closeProcess(b);
      // One by one, so that a late call for the first event has happened when the last event arrives.
      for (const name of series("after ", 10)) {
        await a.append(["#a"], name);
        await c.waitFor(name);
      }
      equal("what it received", b.receivedData("#a"), ["before"]);
    },
  ),

  defineCase(
    "close/others",
    "An engine MUST continue for the other processes when one closes, whatever it was subscribed to.",
    {},
    async (context) => {
      const [a, b, c] = [
        await context.startProcess("#a"),
        await context.startProcess("#a"),
        await context.startProcess("#a"),
      ];
      context.closeProcess(a);
      await b.append(["#a"], "one closed");
      await c.waitFor("one closed");
      context.closeProcess(b);
      await c.append(["#a"], "two closed");
      await c.waitFor("two closed");
      equal("what it received", c.receivedData("#a"), ["one closed", "two closed"]);
    },
  ),
];
