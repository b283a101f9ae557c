import type { EngineCase } from "../harness.ts";
import { check, equal } from "../support/expectation.ts";
import { judge, type Sent } from "../support/page.ts";
import type { Probe } from "../support/probe.ts";
import { caseOf } from "../support/test-broker.ts";
import { series } from "./order.ts";

const CHANNELS = ["", "#a", "#b", "#c", "@one"];

/** The members of `all` whose bit is set. */
const subset = (all: readonly string[], bits: number): string[] => all.filter((_, index) => bits & (1 << index));

/** Appends an event to every mixture of the channels, in an order that mixes them. */
async function mixture(probe: Probe, channels: readonly string[] = CHANNELS): Promise<Sent[]> {
  const sent: Sent[] = [];
  const mixtures = 2 ** channels.length;
  for (let index = 1; index < mixtures; index++) {
    const bits = (index * 11) % mixtures;
    sent.push(await probe.append(subset(channels, bits), `event ${index}`));
  }
  return sent;
}

/** What is in the log, and how it is read. */
export const replayCases: readonly EngineCase[] = [
  caseOf(
    "channels/once",
    "An engine MUST tell a process once of an event of several channels that it subscribed to.",
    {},
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe("", "#a", "#b", "@one")];
      await b.subscribe("#b");
      for (const name of series("event ", 10)) await a.append(["", "#a", "#b", "@one"], name);
      await a.append(["#a"], "end");
      await b.hears("end");
      equal("what it was told of", b.data("", "#a", "#b", "@one"), [...series("event ", 10), "end"]);
    },
  ),

  caseOf(
    "channels/previous",
    "An engine MUST tell for each channel of an event by itself what came before it.",
    {},
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe()];
      const sent = await mixture(a, ["", "#a", "#b"]);
      for (let bits = 1; bits < 8; bits++) {
        const keys = subset(["", "#a", "#b"], bits);
        for (const { seq } of [{ seq: 0 }, ...sent]) {
          const page = await b.read(keys, seq);
          equal("that nothing is lost", Math.max(...page.droppedThrough), 0);
          judge(page, sent, keys, seq);
        }
      }
    },
  ),

  caseOf(
    "channels/apart",
    "An engine MUST NOT take one channel for another, whatever their names.",
    {},
    async (stage) => {
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
      const [a, b] = [await stage.probe(), await stage.probe(...keys)];
      const sent: Sent[] = [];
      for (const key of keys) sent.push(await a.append([key], `to ${key}`));
      await b.hears(`to ${long}y`);
      for (const key of keys) {
        equal(`what was told of ${key}`, b.data(key), [`to ${key}`]);
        const page = await b.read([key], 0);
        equal(`what there is to read of ${key}`, page.records.length, 1);
        judge(page, sent, [key], 0);
      }
    },
  ),

  caseOf(
    "replay/visible",
    "An engine MUST have an event in what every process reads once its append is answered.",
    {},
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe()];
      for (const name of series("event ", 20)) {
        const { seq, text } = await a.append(["#a"], name);
        const { records, through } = await b.read(["#a"], seq - 1);
        equal(
          "the events after the one before",
          records.map((record) => record.text),
          [text],
        );
        check(through >= seq, "how far the page reaches", `${seq} or more`, through);
      }
    },
  ),

  caseOf(
    "replay/merged",
    "An engine MUST read several channels as one, in the order of positions, each event once.",
    {},
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe()];
      const sent = await mixture(a);
      const last = sent.at(-1)?.seq ?? 0;
      for (let bits = 1; bits < 2 ** CHANNELS.length; bits++) {
        const keys = subset(CHANNELS, bits);
        for (const after of [0, sent[bits % sent.length]?.seq ?? 0]) {
          const page = await b.read(keys, after);
          check(page.through >= last, "how far a page that was not cut reaches", `${last} or more`, page.through);
          judge(page, sent, keys, after);
        }
      }
    },
  ),

  caseOf(
    "replay/paged",
    "An engine MAY end a page where it likes, after at least one event if there is one, and MUST NOT say that it reaches further.",
    {},
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe()];
      const sent: Sent[] = [];
      const sizes = [10, 100, 2_000, 30_000, 300_000];
      for (const [index, name] of series("event ", 120).entries()) {
        const size = sizes[index % 40 === 7 ? 4 : (index * 7) % 4] as number;
        sent.push(await a.append([`#${index % 4}`], `${name} ${"x".repeat(size)}`));
      }
      const last = sent.at(-1)?.seq ?? 0;
      for (const keys of [["#0", "#1", "#2"], ["#3"]]) {
        const got: number[] = [];
        for (let after = 0; after < last; ) {
          const page = await b.read(keys, after);
          judge(page, sent, keys, after);
          check(page.through > after, `a page after ${after}`, "to reach further", page.through);
          got.push(...page.records.map(({ seq }) => seq));
          after = page.through;
        }
        const whole = sent.filter((event) => event.keys.some((key) => keys.includes(key)));
        equal(
          "all pages together",
          got,
          whole.map(({ seq }) => seq),
        );
      }
    },
  ),

  caseOf(
    "replay/nothing",
    "An engine MUST answer an empty page that reaches to the head where there is nothing new, and say of nothing that it is lost.",
    {},
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe()];
      const { seq } = await a.append(["#a"], "event");
      for (const keys of [["#a"], ["#never"], ["#a", "#never"]]) {
        const { records, through, droppedThrough } = await b.read(keys, seq);
        equal("an empty page", { records, dropped: droppedThrough }, { records: [], dropped: keys.map(() => 0) });
        check(through >= seq, "how far it reaches", `${seq} or more`, through);
      }
    },
  ),

  caseOf("replay/kept", "An engine MUST keep its log when processes leave.", {}, async (stage) => {
    const a = await stage.probe("#a");
    const sent: Sent[] = [];
    for (const name of series("event ", 5)) sent.push(await a.append(["#a"], name));
    stage.leave(a);
    const b = await stage.probe();
    sent.push(await b.append(["#a"], "event 6"));
    const page = await b.read(["#a"], 0);
    equal("how many there are to read", page.records.length, 6);
    judge(page, sent, ["#a"], 0);
  }),
];
