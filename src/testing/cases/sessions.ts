import type { EngineCase } from "../harness.ts";
import { check, equal, rejects } from "../support/expectation.ts";
import { judge, type Sent } from "../support/page.ts";
import type { Answer } from "../support/probe.ts";
import { caseOf } from "../support/test-broker.ts";
import { series } from "./order.ts";

const placeOf = ({ epoch, seq }: Answer): string => `${epoch}-${seq}`;

/** What a process subscribes to, how it names its events, and that it leaves. */
export const sessionCases: readonly EngineCase[] = [
  caseOf(
    "subscribe/certain",
    "An engine MUST NOT resolve subscribe before every later event of these channels is certain to come.",
    {},
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe()];
      for (let round = 1; round <= 20; round++) {
        await b.subscribe(`#${round}`, `@${round}`);
        await a.append([`${round % 2 ? "#" : "@"}${round}`], `event ${round}`);
      }
      for (const name of series("event ", 20)) await b.hears(name);
    },
  ),

  caseOf(
    "subscribe/then-read",
    "An engine MUST have what was appended before subscribe resolved in a page that is read afterwards.",
    {},
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe()];
      const sent: Sent[] = [await a.append(["#a"], "before")];
      judge(await b.read(["#a"], 0), sent, ["#a"], 0);
      const subscribing = b.subscribe("#a");
      const meanwhile = await a.append(["#a"], "meanwhile");
      sent.push(meanwhile);
      await subscribing;
      const page = await b.read(["#a"], 0);
      equal(
        "the events in the page",
        page.records.map(({ text }) => text),
        sent.map(({ text }) => text),
      );
      check(page.through >= meanwhile.seq, "how far the page reaches", `${meanwhile.seq} or more`, page.through);
    },
  ),

  caseOf(
    "subscribe/no-seam",
    "An engine MUST have every event in a page that is read after subscribe, or tell of it, while others append.",
    {},
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe()];
      const sent: Sent[] = [];
      for (let round = 1; round <= 8; round++) {
        const key = `#${round}`;
        const mine: Sent[] = [];
        const appending = (async () => {
          for (const name of series(`${key}: `, 25)) mine.push(await a.append([key], name));
        })();
        while (mine.length < 5) await b.read([key], 0);
        await b.subscribe(key);
        const page = await b.read([key], 0);
        await appending;
        sent.push(...mine);
        judge(page, sent, [key], 0);
        await b.hears(`${key}: 25`);
        const told = b.came(key).map(({ seq }) => seq);
        const got = new Set([...page.records.map(({ seq }) => seq), ...told]);
        const lost = mine.filter(({ seq }) => !got.has(seq)).map(({ seq }) => seq);
        equal("events that are neither in the page nor told of", lost, []);
        equal(
          "positions told of, each once and in order",
          told,
          [...new Set(told)].sort((x, y) => x - y),
        );
      }
    },
  ),

  caseOf(
    "subscribe/counted",
    "An engine MUST tell of the events of a channel until each subscribe was taken back.",
    {},
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe("#a")];
      await b.subscribe("#a", "#b");
      b.unsubscribe("#a");
      await a.append(["#a"], "while one is left");
      await b.hears("while one is left");
      b.unsubscribe("#a", "#b");
      await a.append(["#a"], "while none is");
      await b.subscribe("#a");
      await a.append(["#a"], "subscribed again");
      await b.hears("subscribed again");
    },
  ),

  caseOf(
    "nonces/once",
    "An engine MUST append what has the same nonce once, and answer with the first position again.",
    { idempotencyWindow: 60_000 },
    async (stage) => {
      const probe = await stage.probe("#a");
      const first = await probe.append(["#a"], "event", "nonce");
      equal("whether the first is repeated", first.repeated, false);
      for (let time = 0; time < 3; time++) {
        const again = await probe.append(["#a"], "event", "nonce");
        equal("the answer to the same nonce", [placeOf(again), again.repeated], [placeOf(first), true]);
        await probe.append(["#a"], `between ${time}`);
      }
      await probe.append(["#a"], "end");
      await probe.hears("end");
      equal("what it was told of", probe.data("#a"), ["event", "between 0", "between 1", "between 2", "end"]);
    },
  ),

  caseOf(
    "nonces/processes",
    "An engine MUST know a nonce at every process, also of those that have left.",
    { idempotencyWindow: 60_000 },
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe("#a")];
      const first = await a.append(["#a", "#b"], "event", "nonce");
      stage.leave(a);
      const again = await b.append(["#b", "#a"], "event", "nonce");
      equal("the answer at another process", [placeOf(again), again.repeated], [placeOf(first), true]);
      await b.append(["#a"], "end");
      await b.hears("end");
      equal("what it was told of", b.data("#a"), ["event", "end"]);
    },
  ),

  caseOf(
    "nonces/at-once",
    "An engine MUST append what has the same nonce once when it is appended several times at once.",
    { idempotencyWindow: 60_000 },
    async (stage) => {
      const probes = [await stage.probe("#a"), await stage.probe("#a")];
      const appending = Array.from({ length: 10 }, () => probes.map((probe) => probe.append(["#a"], "event", "nonce")));
      const answers = await Promise.all(appending.flat());
      equal("how many positions were given", new Set(answers.map(placeOf)).size, 1);
      equal("how many answers are not repeated", answers.filter(({ repeated }) => !repeated).length, 1);
      await probes[0]?.append(["#a"], "end");
      for (const probe of probes) {
        await probe.hears("end");
        equal("what it was told of", probe.data("#a"), ["event", "end"]);
      }
    },
  ),

  caseOf(
    "nonces/other-event",
    "An engine MUST refuse with key-reused what has the nonce of another event.",
    { idempotencyWindow: 60_000 },
    async (stage) => {
      const probe = await stage.probe("#a", "#b");
      await probe.append(["#a"], "event", "nonce");
      for (const [key, data] of [
        ["#a", "another"],
        ["#b", "event"],
      ] as const)
        await rejects(stage.patience, `appending ${data} to ${key}`, probe.append([key], data, "nonce"), [
          "key-reused",
        ]);
      await probe.append(["#a", "#b"], "end");
      await probe.hears("end");
      equal("what it was told of", probe.data("#a", "#b"), ["event", "end"]);
    },
  ),

  caseOf(
    "nonces/apart",
    "An engine MUST append the same event as often as it comes with another nonce, or with none.",
    { idempotencyWindow: 60_000 },
    async (stage) => {
      const probe = await stage.probe("#a");
      const nonces = ["one", "One", "one ", undefined, undefined];
      const answers = [];
      for (const nonce of nonces) answers.push(await probe.append(["#a"], "event", nonce));
      equal("how many positions were given", new Set(answers.map(placeOf)).size, nonces.length);
      equal(
        "whether they are repeated",
        answers.map(({ repeated }) => repeated),
        nonces.map(() => false),
      );
    },
  ),

  caseOf("close/silent", "An engine MUST NOT tell a process of anything once it has left.", {}, async (stage) => {
    const [a, b, c] = [await stage.probe(), await stage.probe("#a"), await stage.probe("#a")];
    await a.append(["#a"], "before");
    await b.hears("before");
    stage.leave(b);
    // One after the other, so that what comes late for the first has come when the last one does.
    for (const name of series("after ", 10)) {
      await a.append(["#a"], name);
      await c.hears(name);
    }
    equal("what it was told of", b.data("#a"), ["before"]);
  }),

  caseOf(
    "close/others",
    "An engine MUST go on for the other processes when one leaves, whatever it had subscribed to.",
    {},
    async (stage) => {
      const [a, b, c] = [await stage.probe("#a"), await stage.probe("#a"), await stage.probe("#a")];
      stage.leave(a);
      await b.append(["#a"], "one left");
      await c.hears("one left");
      stage.leave(b);
      await c.append(["#a"], "two left");
      await c.hears("two left");
      equal("what it was told of", c.data("#a"), ["one left", "two left"]);
    },
  ),
];
