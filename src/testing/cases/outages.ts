import type { EngineCase } from "../harness.ts";
import { equal, persist, rejects, until } from "../support/expectation.ts";
import { judge, type Sent } from "../support/page.ts";
import type { Probe } from "../support/probe.ts";
import { caseOf } from "../support/test-broker.ts";
import { series } from "./order.ts";

/** Appends one after the other. */
async function append(probe: Probe, names: readonly string[], keys: readonly string[] = ["#a"]): Promise<Sent[]> {
  const sent: Sent[] = [];
  for (const name of names) sent.push(await probe.append(keys, name));
  return sent;
}

/** What is lost on the way, and what happens then. The process at index 1 is the one that something happens to. */
export const outageCases: readonly EngineCase[] = [
  caseOf(
    "outcome/unknown",
    "An engine MUST reject with publish-outcome-unknown an append whose answer is lost, and MUST NOT append it twice.",
    { needs: ["loseReply"], idempotencyWindow: 60_000 },
    async (stage) => {
      const probe = await stage.probe("#a");
      await append(probe, ["before"]);
      await stage.fault("loseReply")();
      const lost = probe.append(["#a"], "perhaps", "nonce");
      await rejects(stage.patience, "the append whose answer is lost", lost, ["publish-outcome-unknown"]);
      const again = await probe.persist(["#a"], "perhaps", "nonce");
      equal("whether it was appended before", again.repeated, true);
      await probe.persist(["#a"], "end");
      await probe.hears("end");
      equal("what it was told of", probe.has("#a"), ["before", "perhaps", "end"]);
    },
  ),

  caseOf(
    "outage/said",
    "An engine MUST say that it is down while nothing can be appended, and that it is up afterwards.",
    { needs: ["goAway", "comeBack"] },
    async (stage) => {
      const probe = await stage.probe("#a");
      await stage.fault("goAway")();
      await until(stage.patience, "the state", "to be down", () => !probe.isUp);
      await stage.fault("comeBack")();
      await probe.ready();
      await append(probe, ["afterwards"]);
    },
  ),

  caseOf(
    "outage/refused",
    "An engine MUST reject with engine-down, and not wait, while it is away, and MUST NOT append later what it rejected so.",
    { needs: ["goAway", "comeBack"] },
    async (stage) => {
      const probe = await stage.probe("#a");
      await append(probe, ["before"]);
      await stage.fault("goAway")();
      const codes = ["engine-down", "publish-outcome-unknown"];
      // It may find out by this one.
      const first = await rejects(stage.patience, "the first append", probe.append(["#a"], "first"), codes);
      await until(stage.patience, "the state", "to be down", () => !probe.isUp);
      for (const name of series("refused ", 3))
        await rejects(stage.patience, "an append", probe.append(["#a"], name), ["engine-down"]);
      await stage.fault("comeBack")();
      await probe.ready();
      await append(probe, ["end"]);
      await probe.hears("end");
      const told = probe.has("#a").filter((data) => data !== "first" || first === "engine-down");
      equal("what it was told of", told, ["before", "end"]);
    },
  ),

  caseOf(
    "outage/healed",
    "An engine MUST tell of every event again once it is back, of all that was subscribed to.",
    { needs: ["goAway", "comeBack"] },
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe("#a", "@one")];
      const sent = await append(a, series("before ", 3));
      await stage.fault("goAway")();
      await until(stage.patience, "both states", "to be down", () => !a.isUp && !b.isUp);
      await stage.fault("comeBack")();
      await Promise.all([a.ready(), b.ready()]);
      sent.push(...(await append(a, series("after ", 3))), ...(await append(a, ["end"], ["@one"])));
      await b.hears("end");
      const expected = [...series("before ", 3), ...series("after ", 3), "end"];
      equal("what it was told of", b.has("#a", "@one"), expected);
      b.cameInTurn(sent, "#a", "@one");
      judge(await b.read(["#a", "@one"], 0), sent, ["#a", "@one"], 0);
    },
  ),

  caseOf(
    "feed/cut",
    "An engine MUST tell of every event that was appended while its feed was gone, in order, once it has one again.",
    { needs: ["cutFeed"] },
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe("#a")];
      const sent = await append(a, ["before"]);
      await b.hears("before");
      const cut = stage.fault("cutFeed");
      for (let round = 1; round <= 3; round++) {
        await cut(1);
        sent.push(...(await append(a, series(`after cut ${round}: `, 3))));
      }
      await b.hears("after cut 3: 3");
      const all = [1, 2, 3].flatMap((round) => series(`after cut ${round}: `, 3));
      equal("what it was told of", b.has("#a"), ["before", ...all]);
      b.cameInTurn(sent, "#a");
    },
  ),

  caseOf(
    "feed/told-up-to-head",
    "The head of a process's log MUST NOT pass an event of its channels that it was not told of.",
    { needs: ["cutFeed"] },
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe("#a")];
      const cut = stage.fault("cutFeed");
      const sent: Sent[] = [];
      for (const name of series("event ", 10)) {
        await cut(1);
        sent.push(await a.append(["#a"], name));
        equal("events before its head that it was not told of", b.passed(sent), []);
      }
      await b.hears("event 10");
      equal("what it was told of", b.has("#a"), series("event ", 10));
    },
  ),

  caseOf(
    "feed/cut-while-busy",
    "An engine MUST NOT lose, double or reorder events when its feed is cut between them.",
    { needs: ["cutFeed"] },
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe("#a", "#b")];
      const names = series("event ", 60);
      const sent: Sent[] = [];
      const cut = stage.fault("cutFeed");
      for (const [index, name] of names.entries()) {
        sent.push(await a.append([index % 3 ? "#a" : "#b"], name));
        if (index % 20 === 10) await cut(1);
      }
      await b.hears("event 60");
      equal("what it was told of", b.has("#a", "#b"), names);
      b.cameInTurn(sent, "#a", "#b");
    },
  ),

  caseOf(
    "feed/subscribed-while-cut",
    "An engine MUST make a feed that is new of everything that is subscribed to, also of what was while there was none.",
    { needs: ["cutFeed"] },
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe("#a")];
      await stage.fault("cutFeed")(1);
      // It may be refused for want of a feed.
      await persist(stage.patience, "subscribing", async () => ({ done: await b.subscribe("#b") }));
      await append(a, ["of both"], ["#b", "#a"]);
      await append(a, ["of the new one"], ["#b"]);
      await append(a, ["of the old one"], ["#a"]);
      await b.hears("of the new one");
      await b.hears("of the old one");
      equal("what it was told of", b.has("#a", "#b"), ["of both", "of the new one", "of the old one"]);
    },
  ),

  caseOf(
    "feed/swallowed",
    "An engine MUST tell of an event that vanished on its way before the next one of that channel.",
    { needs: ["swallowFeed"] },
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe("#a", "#b")];
      const sent = await append(a, ["before"]);
      await b.hears("before");
      const undo = await stage.fault("swallowFeed")(1);
      sent.push(...(await append(a, series("vanished ", 2), ["#a", "#b"])));
      await undo();
      sent.push(...(await append(a, ["after"])));
      await b.hears("after");
      equal("what it was told of", b.has("#a", "#b"), ["before", ...series("vanished ", 2), "after"]);
      b.cameInTurn(sent, "#a", "#b");
    },
  ),

  caseOf(
    "feed/last-message-vanished",
    "An engine MUST find out by itself that a message vanished, also where it was the last of its channel and nothing else shows it.",
    { needs: ["swallowFeed"] },
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe("#a", "@one")];
      await append(a, ["before"]);
      await b.hears("before");
      for (const key of ["#a", "@one"]) {
        const undo = await stage.fault("swallowFeed")(1);
        await append(a, [`the last of ${key}`], [key]);
        await undo();
        await b.hears(`the last of ${key}`);
      }
      equal("what it was told of", b.has("#a", "@one"), ["before", "the last of #a", "the last of @one"]);
    },
  ),

  caseOf(
    "feed/half-open",
    "An engine MUST find out that nothing comes through its feed any more, and make another.",
    { needs: ["swallowFeed"] },
    async (stage) => {
      const [a, b] = [await stage.probe(), await stage.probe("#a")];
      const undo = await stage.fault("swallowFeed")(1);
      try {
        await append(a, ["vanished"]);
        await b.hears("vanished");
        await append(a, series("after ", 3));
        await b.hears("after 3");
        equal("what it was told of", b.has("#a"), ["vanished", ...series("after ", 3)]);
      } finally {
        await undo();
      }
    },
  ),
];
