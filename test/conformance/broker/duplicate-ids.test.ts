import { expect, test } from "vitest";
import type { Authorize, Broker, ClientInfo, DisconnectReason } from "../../../src/index.ts";
import type { Connection } from "../../support/clients/connection.ts";
import { slowEngine } from "../../support/engines/slow-engine.ts";
import { clientRequest, problemOf, scene, turn, type Wish, Witness } from "../../support/test-broker.ts";

// `duplicateIds`: a client that connects with an id that is connected already.

interface Left {
  readonly client: ClientInfo;
  readonly reason: DisconnectReason;
}

/** `x-subject` is who it is; an empty one is nobody. */
const authorize: Authorize = ({ request, clientId, channels }) => ({
  subject: request.headers.get("x-subject") || undefined,
  clientId,
  channels,
});
const tab = (subject = "", more: Wish = {}): Wish => ({ id: "tab", headers: { "x-subject": subject }, ...more });

/** Status and code of an answer that is no stream. */
async function refusal(broker: Broker, wish: Wish): Promise<readonly [number, string]> {
  const answer = await broker.clientHandler(clientRequest(wish));
  return [answer.status, await problemOf(answer)];
}

/** Reads to the end of a stream that was replaced. */
async function expectReplaced(client: Connection): Promise<void> {
  expect(await client.ended()).toBe("closed");
  const last = client.events.at(-1);
  expect(last).toMatchObject({ event: "fanwire-end", id: undefined });
  expect(JSON.parse(last?.data ?? "")).toEqual({ reason: "replaced", reconnect: false });
  // An EventSource cannot be told not to come back, so it is told to come late: an hour at the least.
  expect(client.retries.at(-1)).toBeGreaterThanOrEqual(3_600_000);
}

/** Checks that a client receives what is for everybody and what is for it. */
async function expectReceives(broker: Broker, client: Connection): Promise<void> {
  const { id } = await broker.broadcastTo("tab", "own");
  await broker.broadcast("all");
  expect(await client.until((event) => event.id === id)).toMatchObject({ data: "own" });
  expect((await client.nextData()).data).toBe("all");
}

test(
  "duplicateIds: what is none of the three is a TypeError",
  scene(async (stage) => {
    for (const duplicateIds of ["Allow", "", "deny", null, true, 0, ["allow"]]) {
      expect(() => stage.broker({ duplicateIds: duplicateIds as "allow" })).toThrow(TypeError);
    }
    for (const duplicateIds of ["allow", "reject", "replace", undefined] as const) {
      expect(() => stage.broker(duplicateIds ? { duplicateIds } : {})).not.toThrow();
    }
  }),
);

test(
  "duplicateIds: allow, the default, has each connection receive, of one subject or of several",
  scene(async (stage) => {
    for (const options of [{}, { duplicateIds: "allow" } as const]) {
      const broker = stage.broker({ ...options, authorize });
      const clients = [
        await stage.join(broker, tab("ann")),
        await stage.join(broker, tab("ann")),
        await stage.join(broker, tab("ben")),
        await stage.join(broker, tab()),
      ];
      expect(broker.stats()).toMatchObject({ clients: 4, ids: 1 });
      expect(await broker.broadcastTo("tab", "each")).toMatchObject({ clients: 4 });
      for (const client of clients) expect((await client.nextData()).data).toBe("each");
    }
  }),
);

test(
  "duplicateIds: reject answers 409 duplicate-id, also to an EventSource, and the first one keeps receiving",
  scene(async (stage) => {
    const left = new Witness<Left>();
    const broker = stage.broker({ duplicateIds: "reject", onDisconnect: left.see });
    const first = await stage.join(broker, tab());
    for (const accept of ["text/event-stream", "*/*"])
      expect(await refusal(broker, { id: "tab", headers: { accept } })).toEqual([409, "duplicate-id"]);
    await expectReceives(broker, first);
    expect(broker.stats()).toMatchObject({
      clients: 1,
      closing: 0,
      failures: { "duplicate-id": 2 },
      disconnects: {},
    });
    expect(left.all).toEqual([]);
  }),
);

test(
  "duplicateIds: reject lets the next one in once the first has gone, however it went",
  scene(async (stage) => {
    const left = new Witness<Left>();
    const broker = stage.broker({ duplicateIds: "reject", timeout: 20, tolerance: 1, onDisconnect: left.see });
    await (await stage.join(broker, tab())).leave();
    (await stage.join(broker, tab())).abort();
    await stage.join(broker, tab());
    await broker.disconnect("tab");
    // It has not read that yet.
    await stage.join(broker, tab());
    await broker.broadcast("blocks");
    while ((await left.next()).reason !== "timeout");
    const last = await stage.join(broker, tab());
    await expectReceives(broker, last);
    expect(await refusal(broker, tab())).toEqual([409, "duplicate-id"]);
  }),
);

test(
  "duplicateIds: reject and replace leave clients alone whose ids the broker makes",
  scene(async (stage) => {
    for (const duplicateIds of ["reject", "replace"] as const) {
      const broker = stage.broker({ duplicateIds });
      for (let client = 0; client < 5; client++) await stage.join(broker);
      expect(broker.stats()).toMatchObject({ clients: 5, ids: 5 });
    }
  }),
);

test(
  "duplicateIds: reject refuses all but one of those that connect at once",
  scene(async (stage) => {
    for (const engine of [stage.engine(), slowEngine(stage.engine(), turn)]) {
      const broker = stage.broker({ duplicateIds: "reject", engine });
      const answers = await Promise.all(Array.from({ length: 5 }, () => broker.clientHandler(clientRequest(tab()))));
      expect(answers.map(({ status }) => status).sort()).toEqual([200, 409, 409, 409, 409]);
      expect(broker.stats()).toMatchObject({ clients: 1, ids: 1, channels: 2 });
      for (const { body } of answers) await body?.cancel();
      expect(broker.stats()).toMatchObject({ clients: 0, channels: 0 });
    }
  }),
);

test(
  "duplicateIds: replace ends the old one with fanwire-end and a long retry, says why, and the new one receives",
  scene(async (stage) => {
    const left = new Witness<Left>();
    const broker = stage.broker({ duplicateIds: "replace", retry: 1_000, onDisconnect: left.see });
    const old = await stage.join(broker, tab());
    const [info] = broker.clients();
    const ended = expectReplaced(old);
    const fresh = await stage.join(broker, tab());
    await ended;
    expect(await left.next()).toEqual({ client: info, reason: "replaced" });
    expect(fresh.retries[0]).toBeLessThanOrEqual(1_500);
    await expectReceives(broker, fresh);
    expect(old.data).toEqual([]);
    expect(broker.stats()).toMatchObject({ clients: 1, ids: 1, closing: 0, disconnects: { replaced: 1 } });
    expect(broker.clients().map(({ connectionId }) => connectionId)).not.toContain(info?.connectionId);
  }),
);

test(
  "duplicateIds: replace, and the old one's later close does not take the new one with it",
  scene(async (stage) => {
    const left = new Witness<Left>();
    const broker = stage.broker({ duplicateIds: "replace", onDisconnect: left.see, inboxLinger: 0 });
    const unread = await stage.join(broker, tab());
    const read = await stage.join(broker, tab());
    const fresh = await stage.join(broker, tab());
    await expectReplaced(read);
    for (const old of [unread, read]) {
      old.abort();
      await old.leave();
      old.abort();
    }
    await turn();
    expect(left.all.map(({ reason }) => reason)).toEqual(["replaced", "replaced"]);
    expect(broker.stats()).toMatchObject({ clients: 1, ids: 1, closing: 0, channels: 2 });
    await expectReceives(broker, fresh);
  }),
);

test(
  "duplicateIds: replace of a blocked one: it reads its end and not what it missed, which the new one resumes",
  scene(async (stage) => {
    const broker = stage.broker({ duplicateIds: "replace", timeout: 60_000 });
    const old = await stage.join(broker, tab());
    await broker.broadcastTo("tab", "read");
    await old.untilData("read");
    for (const data of ["missed 1", "missed 2"]) await broker.broadcastTo("tab", data);
    const fresh = await stage.join(broker, tab("", { lastEventId: old.lastEventId ?? "" }));
    expect(broker.stats()).toMatchObject({ clients: 1, closing: 1 });
    await expectReplaced(old);
    expect(old.data).toEqual(["read"]);
    expect([(await fresh.nextData()).data, (await fresh.nextData()).data]).toEqual(["missed 1", "missed 2"]);
    expect(fresh.control("gap")).toEqual([]);
    expect(broker.stats()).toMatchObject({ clients: 1, closing: 0 });
  }),
);

test(
  "duplicateIds: replace of one that never reads its end: it is errored within timeout, and nothing of it is left",
  scene(async (stage) => {
    const broker = stage.broker({ duplicateIds: "replace", timeout: 40, tolerance: 1_000 });
    const old = await stage.join(broker, tab());
    await broker.broadcast("unread");
    const fresh = await stage.join(broker, tab());
    expect(broker.stats()).toMatchObject({ clients: 1, closing: 1 });
    while (broker.stats().closing > 0) await turn();
    expect(await old.ended()).toBe("errored");
    await expectReceives(broker, fresh);
    expect(broker.stats()).toMatchObject({ clients: 1, closing: 0, channels: 2 });
  }),
);

test(
  "duplicateIds: replace by several that connect at once leaves the last of them, and ends no other subject's",
  scene(async (stage) => {
    const broker = stage.broker({ duplicateIds: "replace", engine: slowEngine(stage.engine(), turn), authorize });
    const others = [await stage.join(broker, tab("ann")), await stage.join(broker, tab("ben"))];
    const answers = await Promise.all(Array.from({ length: 4 }, () => broker.clientHandler(clientRequest(tab("ann")))));
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200]);
    expect(broker.stats()).toMatchObject({ clients: 2, ids: 1, disconnects: { replaced: 4 } });
    await expectReplaced(others[0] as Connection);
    // The last one is it.
    for (const { body } of answers.slice(0, 3))
      expect(await new Response(body).text()).toContain('"reason":"replaced"');
    await answers[3]?.body?.cancel();
    expect(broker.stats()).toMatchObject({ clients: 1, closing: 0 });
    await expectReceives(broker, others[1] as Connection);
  }),
);

for (const [duplicateIds, allowed] of [
  ["reject", [409, "duplicate-id"]],
  ["replace", 200],
] as const) {
  test(
    `duplicateIds: ${duplicateIds} acts only within one subject, and those without one are one`,
    scene(async (stage) => {
      const broker = stage.broker({ duplicateIds, authorize });
      const ann = await stage.join(broker, tab("ann"));
      const ben = await stage.join(broker, tab("ben"));
      const nobody = await stage.join(broker, tab());
      expect(broker.stats()).toMatchObject({ clients: 3, ids: 1 });
      if (allowed === 200) await stage.join(broker, tab("ben"));
      else expect(await refusal(broker, tab("ben"))).toEqual(allowed);
      if (allowed === 200) await stage.join(broker, tab());
      else expect(await refusal(broker, tab())).toEqual(allowed);
      expect(broker.stats()).toMatchObject({ clients: 3, ids: 1 });
      // Another id of the same subject is another client.
      await stage.join(broker, tab("ann", { id: "other" }));
      await expectReceives(broker, ann);
      if (allowed === 200) for (const old of [ben, nobody]) await expectReplaced(old);
      else for (const first of [ben, nobody]) await expectReceives(broker, first);
    }),
  );
}

test(
  "duplicateIds: HEAD and a request that is refused or was left replace nobody",
  scene(async (stage) => {
    const broker = stage.broker({
      duplicateIds: "replace",
      authorize: ({ request, clientId }) => request.headers.get("x-subject") !== "eve" && { clientId: clientId ?? "x" },
    });
    const client = await stage.join(broker, tab());
    const head = new Request("https://fanwire.test/connect?id=tab", { method: "HEAD" });
    for (const handle of [broker.fetch, broker.clientHandler]) expect((await handle(head)).status).toBe(200);
    expect(await refusal(broker, tab("eve"))).toEqual([403, "forbidden"]);
    expect((await broker.clientHandler(clientRequest(tab(), AbortSignal.abort()))).status).toBe(499);
    expect(await refusal(broker, tab("", { query: { from: "nowhere" } }))).toEqual([400, "bad-request"]);
    await expectReceives(broker, client);
    expect(broker.stats()).toMatchObject({ clients: 1, closing: 0, disconnects: {} });
  }),
);

test(
  "duplicateIds: HEAD is no duplicate under reject",
  scene(async (stage) => {
    const broker = stage.broker({ duplicateIds: "reject" });
    const client = await stage.join(broker, tab());
    const head = new Request("https://fanwire.test/connect?id=tab", { method: "HEAD" });
    expect((await broker.fetch(head)).status).toBe(200);
    await client.leave();
    expect((await broker.fetch(head)).status).toBe(200);
    await expectReceives(broker, await stage.join(broker, tab()));
  }),
);

for (const bound of ["maxClientsPerId", "maxClientsPerSubject"]) {
  test(
    `duplicateIds: replace needs no further place of ${bound}, however often`,
    scene(async (stage) => {
      const broker = stage.broker({ duplicateIds: "replace", [bound]: 1, authorize });
      let client = await stage.join(broker, tab("ann"));
      for (let time = 0; time < 5; time++) {
        const ended = expectReplaced(client);
        client = await stage.join(broker, tab("ann"));
        await ended;
      }
      await expectReceives(broker, client);
      const other = tab(
        bound === "maxClientsPerId" ? "ben" : "ann",
        bound === "maxClientsPerId" ? {} : { id: "other" },
      );
      expect(await (await broker.clientHandler(clientRequest(other))).text()).toContain('"reason":"at-capacity"');
      await expectReceives(broker, client);
      expect(broker.stats()).toMatchObject({ clients: 1, closing: 0, failures: { "at-capacity": 1 } });
    }),
  );
}

test(
  "duplicateIds: replace counts a subject's connections right, so that none is left over",
  scene(async (stage) => {
    const broker = stage.broker({ duplicateIds: "replace", maxClientsPerSubject: 2, authorize });
    const clients = [await stage.join(broker, tab("ann")), await stage.join(broker, tab("ann", { id: "other" }))];
    clients.push(await stage.join(broker, tab("ann")));
    for (const client of clients) {
      await client.leave();
      client.abort();
    }
    for (const id of ["one", "two"]) await stage.join(broker, tab("ann", { id }));
    expect(await (await broker.clientHandler(clientRequest(tab("ann")))).text()).toContain('"reason":"at-capacity"');
    expect(broker.stats().clients).toBe(2);
  }),
);

test(
  "duplicateIds: replace by a client that the hook of the old one's end sends something to",
  scene(async (stage) => {
    let broker: Broker | undefined;
    broker = stage.broker({
      duplicateIds: "replace",
      onDisconnect: ({ client, reason }) => broker?.broadcastTo(client.clientId, reason),
    });
    await stage.join(broker, tab());
    const fresh = await stage.join(broker, tab());
    expect((await fresh.nextData()).data).toBe("replaced");
  }),
);
