import { formatPosition, parsePosition } from "../../event/position.ts";
import type { EngineCase } from "../harness.ts";
import { check, equal } from "../support/expectation.ts";
import { type Answer, dataOf, type Probe } from "../support/probe.ts";
import { caseOf } from "../support/test-broker.ts";

/** `count` names that begin with `prefix`. */
export const series = (prefix: string, count: number): string[] =>
  Array.from({ length: count }, (_, index) => `${prefix}${index + 1}`);

/** Appends all at once, each to the channel whose turn it is. */
const appendAll = (probe: Probe, names: readonly string[], keys: readonly string[]): Promise<Answer[]> =>
  Promise.all(names.map((name, index) => probe.append([keys[index % keys.length] as string], name)));

const inOrder = (answers: readonly Answer[]): readonly Answer[] => answers.toSorted((a, b) => a.seq - b.seq);

/** Which place an event gets, and in which order it is told of. */
export const orderCases: readonly EngineCase[] = [
  caseOf(
    "order/one-process",
    "An engine MUST keep the order of the calls of one process, awaited or not.",
    {},
    async (stage) => {
      const keys = ["", "#a", "@one"];
      const [a, b] = [await stage.probe(...keys), await stage.probe(...keys)];
      const names = series("event ", 60);
      const answers = await appendAll(a, names, keys);
      equal("positions in the order of the calls", inOrder(answers).map(dataOf), names);
      for (const [who, probe] of [
        ["its own process", a],
        ["another process", b],
      ] as const) {
        await probe.hears("event 60");
        equal(`what ${who} was told of`, probe.data(...keys), names);
      }
    },
  ),

  caseOf(
    "order/processes",
    "An engine MUST tell every process of the events of all processes in the one order of their positions.",
    {},
    async (stage) => {
      const keys = ["", "#a"];
      const probes = [await stage.probe(...keys), await stage.probe(...keys), await stage.probe(...keys)];
      const answers: Answer[] = [];
      for (let round = 1; round <= 10; round++) {
        const appending = probes.map((probe, index) => appendAll(probe, series(`${index} in ${round}: `, 3), keys));
        answers.push(...(await Promise.all(appending)).flat());
      }
      const expected = inOrder(answers).map(dataOf);
      for (const probe of probes) {
        for (const data of expected) await probe.hears(data);
        equal("what a process was told of", probe.data(...keys), expected);
      }
    },
  ),

  caseOf(
    "order/told-first",
    "An engine MUST tell the process that appends of an event of its channels before the append is answered.",
    {},
    async (stage) => {
      const probe = await stage.probe("#a");
      for (const name of series("event ", 20)) {
        await probe.append(["#a"], name);
        equal("the last event told of, when the append is answered", probe.data("#a").at(-1), name);
      }
    },
  ),

  caseOf(
    "order/whole",
    "An engine MUST hand on an event as it was appended, of the same channels, under the id of its position.",
    {},
    async (stage) => {
      const [a, b] = [await stage.probe("#a"), await stage.probe("#b")];
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
        for (const probe of [a, b]) {
          const seen = await probe.hears(data);
          equal("an event as it was sent on", [seen.id, seen.seq, seen.text], [id, seq, text]);
          equal("its channels", [...seen.keys].sort(), ["#a", "#b"]);
        }
        const [record] = (await b.read(["#b"], seq - 1)).records;
        equal("an event as it is read", [record?.seq, record?.text], [seq, text]);
      }
    },
  ),

  caseOf("positions/unique", "An engine MUST NOT give a position twice.", {}, async (stage) => {
    const probes = [await stage.probe(), await stage.probe()];
    const answers: Answer[] = [];
    for (let round = 1; round <= 10; round++) {
      const appending = probes.map((probe, index) => appendAll(probe, series(`${index} in ${round}: `, 5), ["", "#a"]));
      answers.push(...(await Promise.all(appending)).flat());
    }
    const ids = answers.map(({ epoch, seq }) => formatPosition(epoch, seq));
    const twice = ids.filter((id, index) => ids.indexOf(id) !== index);
    equal("positions given twice", twice, []);
  }),

  caseOf(
    "positions/increasing",
    "An engine MUST give an event a position after that of every event whose append was answered before.",
    {},
    async (stage) => {
      const probes = [await stage.probe(), await stage.probe()];
      let last = 0;
      for (const name of series("event ", 30)) {
        const { seq } = await (probes[last % 2] as Probe).append([name.endsWith("5") ? "" : "#a"], name);
        check(Number.isSafeInteger(seq) && seq > last, `the position of ${name}`, `a whole number over ${last}`, seq);
        last = seq;
      }
    },
  ),

  caseOf(
    "positions/wire",
    "An engine's positions MUST have a wire form: an epoch of at most 47 characters from A-Za-z0-9 and -.",
    {},
    async (stage) => {
      const probe = await stage.probe();
      const { epoch, seq } = await probe.append(["#a"], "event");
      equal("a position read back from its wire form", parsePosition(formatPosition(epoch, seq)), { epoch, seq });
    },
  ),

  caseOf(
    "epoch/one",
    "An engine MUST have one epoch for all processes as long as its log continues.",
    {},
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe()];
      const { epoch } = await a.append(["#a"], "first");
      equal("the epoch at another process", (await b.append(["#a"], "second")).epoch, epoch);
      equal("the epoch of a page", (await b.read(["#a"], 0)).epoch, epoch);
      stage.leave(a);
      stage.leave(b);
      const later = await stage.probe();
      equal("the epoch when all processes are new", (await later.append(["#a"], "third")).epoch, epoch);
    },
  ),

  caseOf("epoch/another", "An engine MUST NOT give another log the epoch of this one.", {}, async (stage) => {
    const other = await stage.apart();
    const epochs = [];
    for (const place of [stage, other]) epochs.push((await (await place.probe()).append(["#a"], "first")).epoch);
    check(epochs[0] !== epochs[1], "the epochs of two logs", "two", epochs);
  }),

  caseOf(
    "epoch/new",
    "An engine MUST begin a new epoch where its log does not continue, before it gives a position.",
    { needs: ["beginAnew"] },
    async (stage) => {
      const [a, b] = [await stage.probe("#a"), await stage.probe("#a")];
      const before = [];
      for (const name of series("before ", 5)) before.push(await a.append(["#a"], name));
      await b.hears("before 5");
      await stage.fault("beginAnew")();
      // It may be refused while the engine finds out.
      const { epoch, seq } = await a.persist(["#a"], "after");
      check(epoch !== before[0]?.epoch, "the epoch of the new log", `another than ${before[0]?.epoch}`, epoch);
      for (const probe of [a, b])
        equal("the id of an event", (await probe.hears("after")).id, formatPosition(epoch, seq));
      equal("the epoch of a page", (await b.read(["#a"], seq - 1)).epoch, epoch);
      equal("the epoch at another process", (await b.persist(["#a"], "last")).epoch, epoch);
    },
  ),
];
