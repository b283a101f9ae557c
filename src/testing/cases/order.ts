// Cases about positions, order and epochs.
import { formatPosition, parsePosition } from "../../event/position.ts";
import type { EngineCase } from "../harness.ts";
import { defineCase } from "../support/case-context.ts";
import { check, equal } from "../support/expectation.ts";
import { type AppendAnswer, dataOf, type TestProcess } from "../support/test-process.ts";

/** Returns `count` texts: the prefix and a number from 1. */
export const series = (prefix: string, count: number): string[] =>
  Array.from({ length: count }, (_, index) => `${prefix}${index + 1}`);

/** Appends events without awaiting, each to the next one of these channels. */
const appendAll = (process: TestProcess, names: readonly string[], keys: readonly string[]): Promise<AppendAnswer[]> =>
  Promise.all(names.map((name, index) => process.append([keys[index % keys.length] as string], name)));

const inOrder = (answers: readonly AppendAnswer[]): readonly AppendAnswer[] =>
  answers.toSorted((a, b) => a.seq - b.seq);

/** Positions of events, and the order in which they are reported. */
export const orderCases: readonly EngineCase[] = [
  defineCase(
    "order/one-process",
    "An engine MUST keep the order of the append calls of one process, awaited or not.",
    {},
    async (context) => {
      const keys = ["", "#a", "@one"];
      const [a, b] = [await context.startProcess(...keys), await context.startProcess(...keys)];
      const names = series("event ", 60);
      const answers = await appendAll(a, names, keys);
      equal("positions in the order of the calls", inOrder(answers).map(dataOf), names);
      for (const [name, process] of [
        ["its own process", a],
        ["another process", b],
      ] as const) {
        await process.waitFor("event 60");
        equal(`what ${name} received`, process.receivedData(...keys), names);
      }
    },
  ),

  defineCase(
    "order/ephemeral",
    "An engine MUST report an ephemeral event behind what its process appended before, once at most, to every process, and MUST NOT keep it.",
    { needs: ["ephemeral"] },
    async (context) => {
      const keys = ["#a", "#b"];
      const processes = [await context.startProcess(...keys), await context.startProcess(...keys)];
      const [sender] = processes as [TestProcess];
      const names = series("event ", 20);
      const calls = names.flatMap((name) => [sender.append(keys, name), sender.sendEphemeral(keys, `after ${name}`)]);
      await Promise.all(calls);
      const last = (await sender.append(keys, "end")).seq;
      for (const process of processes) {
        await process.waitFor("end");
        const received = process.ephemeral;
        // It may get lost, but not where nothing happens.
        equal(
          "ephemeral events that a process received",
          received.map(({ data }) => data),
          names.map((name) => `after ${name}`),
        );
        equal(
          "the event before each of them",
          received.map(({ before }) => `after ${before}`),
          received.map(({ data }) => data),
        );
      }
      const page = await sender.read(keys, 0);
      equal("what is retained", page.records.map(dataOf), [...names, "end"]);
      equal("positions, which only appended events take", last, names.length + 1);
    },
  ),

  defineCase(
    "order/processes",
    "An engine MUST report the events of all processes to every process, in the order of their positions.",
    {},
    async (context) => {
      const keys = ["", "#a"];
      const processes = [
        await context.startProcess(...keys),
        await context.startProcess(...keys),
        await context.startProcess(...keys),
      ];
      const answers: AppendAnswer[] = [];
      for (let round = 1; round <= 10; round++) {
        const appending = processes.map((process, index) =>
          appendAll(process, series(`${index} in ${round}: `, 3), keys),
        );
        answers.push(...(await Promise.all(appending)).flat());
      }
      const expected = inOrder(answers).map(dataOf);
      for (const process of processes) {
        for (const data of expected) await process.waitFor(data);
        equal("what a process received", process.receivedData(...keys), expected);
      }
    },
  ),

  defineCase(
    "order/told-first",
    "An engine MUST report an event of subscribed channels to the process that appends it before it answers the append.",
    {},
    async (context) => {
      const process = await context.startProcess("#a");
      for (const name of series("event ", 20)) {
        await process.append(["#a"], name);
        equal("the last event that was reported when the append was answered", process.receivedData("#a").at(-1), name);
      }
    },
  ),

  defineCase(
    "order/whole",
    "An engine MUST deliver an event unchanged, with the same channels, under the id of its position.",
    {},
    async (context) => {
      const [a, b] = [await context.startProcess("#a"), await context.startProcess("#b")];
      for (const data of [
        "one line",
        "",
        "two\ndata: lines\ndata: ",
        "é漢😀\u2028\u0001\t",
        "id: 7",
        "x".repeat(20_000),
      ]) {
        const { epoch, seq, text } = await a.append(["#a", "#b"], data);
        const id = formatPosition(epoch, seq);
        for (const process of [a, b]) {
          const entry = await process.waitFor(data);
          equal("an event as it was reported", [entry.id, entry.seq, entry.text], [id, seq, text]);
          equal("its channels", [...entry.keys].sort(), ["#a", "#b"]);
        }
        const [record] = (await b.read(["#b"], seq - 1)).records;
        equal("an event as it is read", [record?.seq, record?.text], [seq, text]);
      }
    },
  ),

  defineCase("positions/unique", "An engine MUST NOT assign a position twice.", {}, async (context) => {
    const processes = [await context.startProcess(), await context.startProcess()];
    const answers: AppendAnswer[] = [];
    for (let round = 1; round <= 10; round++) {
      const appending = processes.map((process, index) =>
        appendAll(process, series(`${index} in ${round}: `, 5), ["", "#a"]),
      );
      answers.push(...(await Promise.all(appending)).flat());
    }
    const ids = answers.map(({ epoch, seq }) => formatPosition(epoch, seq));
    const twice = ids.filter((id, index) => ids.indexOf(id) !== index);
    equal("positions assigned twice", twice, []);
  }),

  defineCase(
    "positions/increasing",
    "An engine MUST assign to an event a position after that of every event whose append was answered before.",
    {},
    async (context) => {
      const processes = [await context.startProcess(), await context.startProcess()];
      let last = 0;
      for (const name of series("event ", 30)) {
        const { seq } = await (processes[last % 2] as TestProcess).append([name.endsWith("5") ? "" : "#a"], name);
        check(Number.isSafeInteger(seq) && seq > last, `the position of ${name}`, `a whole number over ${last}`, seq);
        last = seq;
      }
    },
  ),

  defineCase(
    "positions/wire",
    "An engine's positions MUST have a wire form: an epoch has 1 to 47 characters of A-Z, a-z, 0-9 and -.",
    {},
    async (context) => {
      const process = await context.startProcess();
      const { epoch, seq } = await process.append(["#a"], "event");
      equal("a position read back from its wire form", parsePosition(formatPosition(epoch, seq)), { epoch, seq });
    },
  ),

  defineCase(
    "epoch/one",
    "An engine MUST have one epoch for all processes for as long as its log continues.",
    {},
    async (context) => {
      const [a, b] = [await context.startProcess(), await context.startProcess()];
      const { epoch } = await a.append(["#a"], "first");
      equal("the epoch in another process", (await b.append(["#a"], "second")).epoch, epoch);
      equal("the epoch of a page", (await b.read(["#a"], 0)).epoch, epoch);
      context.closeProcess(a);
      context.closeProcess(b);
      const later = await context.startProcess();
      equal("the epoch after all processes were replaced", (await later.append(["#a"], "third")).epoch, epoch);
    },
  ),

  defineCase("epoch/another", "An engine MUST NOT use one epoch for two logs.", {}, async (context) => {
    const other = await context.openAnother();
    const epochs = [];
    for (const each of [context, other]) epochs.push((await (await each.startProcess()).append(["#a"], "first")).epoch);
    check(epochs[0] !== epochs[1], "the epochs of two logs", "two", epochs);
  }),

  defineCase(
    "epoch/new",
    "An engine MUST begin a new epoch when its log does not continue, before it assigns a position.",
    { needs: ["beginAnew"] },
    async (context) => {
      const [a, b] = [await context.startProcess("#a"), await context.startProcess("#a")];
      const before = [];
      for (const name of series("before ", 5)) before.push(await a.append(["#a"], name));
      await b.waitFor("before 5");
      await context.fault("beginAnew")();
      // The engine may refuse events until it has found out.
      const { epoch, seq } = await a.appendOnceUp(["#a"], "after");
      check(epoch !== before[0]?.epoch, "the epoch of the new log", `another than ${before[0]?.epoch}`, epoch);
      for (const process of [a, b])
        equal("the id of an event", (await process.waitFor("after")).id, formatPosition(epoch, seq));
      equal("the epoch of a page", (await b.read(["#a"], seq - 1)).epoch, epoch);
      equal("the epoch in another process", (await b.appendOnceUp(["#a"], "last")).epoch, epoch);
    },
  ),
];
