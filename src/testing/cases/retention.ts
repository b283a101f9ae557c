import type { EngineCase } from "../harness.ts";
import { equal, until } from "../support/expectation.ts";
import { judge, type Kept, type Sent } from "../support/page.ts";
import type { Probe } from "../support/probe.ts";
import { caseOf, type Stage } from "../support/test-broker.ts";
import { series } from "./order.ts";

async function append(probe: Probe, names: readonly string[], keys: readonly string[]): Promise<Sent[]> {
  const sent: Sent[] = [];
  for (const name of names) sent.push(await probe.append(keys, name));
  return sent;
}

/** Waits until a channel has no more than so many events to read, and is right about it all the time. */
async function settles(stage: Stage, probe: Probe, sent: readonly Sent[], key: string, size: number): Promise<void> {
  let seen = 0;
  await until(
    stage.patience,
    `the events to read of ${key}`,
    `to be ${size}`,
    async () => {
      const page = await probe.read([key], 0);
      judge(page, sent, [key], 0, size);
      seen = page.records.length;
      return seen === size;
    },
    () => seen,
  );
}

/** What is kept, and what is said of what is not. */
export const retentionCases: readonly EngineCase[] = [
  caseOf(
    "retention/events",
    "An engine MUST keep as many of a channel's events as retention says, drop those before, and say how far it did.",
    { retention: { events: 4 } },
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe()];
      const sent = await append(a, series("event ", 10), ["#a"]);
      await settles(stage, b, sent, "#a", 4);
      const last = sent.at(5)?.seq;
      equal("how far it was dropped", (await b.read(["#a"], 0)).droppedThrough, [last]);
    },
  ),

  caseOf(
    "retention/bytes",
    "An engine MUST keep no more bytes of a channel than retention says, and as many events as fit.",
    { retention: { bytes: 2_500 } },
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe()];
      const names = series("", 6).map((digit) => digit.repeat(1_000));
      const sent = await append(a, names, ["#a"]);
      await settles(stage, b, sent, "#a", 2);
    },
  ),

  caseOf(
    "retention/age",
    "An engine MUST NOT keep events for longer than retention says, also where nothing is appended any more.",
    { retention: { age: 150 } },
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe()];
      const sent = await append(a, series("old ", 3), ["#a"]);
      const look = async (): Promise<number> => {
        const page = await b.read(["#a"], 0);
        judge(page, sent, ["#a"], 0, 0);
        return page.records.length;
      };
      await until(stage.patience, "the events to read", "to be none", async () => (await look()) === 0);
      const { seq } = (await append(a, ["young"], ["#a"]))[0] as Sent;
      const { records, droppedThrough } = await b.read(["#a"], seq - 1);
      // It may be too old by now, where the machine is slow.
      equal(
        "whether a new event is either there or said to be lost",
        records.length > 0 !== (droppedThrough[0] ?? 0) >= seq,
        true,
      );
    },
  ),

  caseOf(
    "retention/shared",
    "An engine MUST keep an event as long as one of its channels does.",
    { retention: { events: 3 } },
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe()];
      const sent = await append(a, ["both"], ["#a", "#b"]);
      sent.push(...(await append(a, series("a ", 5), ["#a"])));
      const both = sent[0]?.seq;
      for (const keys of [["#b"], ["#a", "#b"]]) {
        const page = await b.read(keys, 0);
        equal(`the first event of ${keys.join(" and ")}`, page.records[0]?.seq, both);
        judge(page, sent, keys, 0, 3);
      }
      sent.push(...(await append(a, series("b ", 5), ["#b"])));
      await settles(stage, b, sent, "#a", 3);
      await settles(stage, b, sent, "#b", 3);
    },
  ),

  caseOf(
    "gaps/exact",
    "An engine MUST say of each channel by itself how far it is not kept, so that every reader can tell what it lost.",
    { retention: { events: 3 } },
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe()];
      const sent: Sent[] = [];
      for (let round = 1; round <= 8; round++) {
        sent.push(...(await append(a, [`busy ${round}`], ["#busy"])));
        if (round % 4 === 0) sent.push(...(await append(a, [`quiet ${round}`], ["#quiet"])));
      }
      const kept: Kept = () => 3;
      await settles(stage, b, sent, "#busy", 3);
      for (const keys of [["#busy", "#quiet"], ["#quiet", "#busy"], ["#quiet"], ["#busy"]]) {
        for (const { seq } of [{ seq: 0 }, ...sent]) judge(await b.read(keys, seq), sent, keys, seq, kept);
      }
      const busy = sent.filter(({ keys }) => keys[0] === "#busy");
      const { droppedThrough } = await b.read(["#quiet", "#busy"], 0);
      equal("how far each was dropped", droppedThrough, [0, busy.at(-4)?.seq]);
    },
  ),

  caseOf(
    "gaps/emptied",
    "An engine MUST say that a channel lost events also where nothing of it is left.",
    { retention: { age: 100 } },
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe()];
      const sent = await append(a, series("gone ", 3), ["#a"]);
      const last = sent.at(-1)?.seq ?? 0;
      await until(
        stage.patience,
        "the events to read",
        "to be none",
        async () => (await b.read(["#a"], 0)).records.length === 0,
      );
      for (const { seq } of [{ seq: 0 }, ...sent]) {
        const { droppedThrough } = await b.read(["#a"], seq);
        equal(`whether events are lost after ${seq}`, (droppedThrough[0] ?? 0) > seq, seq < last);
      }
    },
  ),
];
