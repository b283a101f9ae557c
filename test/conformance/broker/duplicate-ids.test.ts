// `duplicateIds`: a client connects with the client id of another connection.
import { expect, test } from "vitest";
import type { Authorize, Broker, ClientInfo, DisconnectReason } from "../../../src/index.ts";
import type { Connection } from "../../support/clients/connection.ts";
import { slowEngine } from "../../support/engines/slow-engine.ts";
import {
  type ConnectOptions,
  clientRequest,
  problemOf,
  Recorder,
  turn,
  withBroker,
} from "../../support/test-broker.ts";

interface Disconnect {
  readonly client: ClientInfo;
  readonly reason: DisconnectReason;
}

/** Grants the requested access. The header `x-subject` is the subject; an empty one means none. */
const authorize: Authorize = ({ request, clientId, channels }) => ({
  subject: request.headers.get("x-subject") || undefined,
  clientId,
  channels,
});
/** A request with the client id "tab". */
const tab = (subject = "", more: ConnectOptions = {}): ConnectOptions => ({
  id: "tab",
  headers: { "x-subject": subject },
  ...more,
});

/** Returns status and code of the answer to a refused client that is not an EventSource. */
async function refusal(broker: Broker, requested: ConnectOptions): Promise<readonly [number, string]> {
  const answer = await broker.clientHandler(
    clientRequest({ ...requested, headers: { ...requested.headers, accept: "*/*" } }),
  );
  return [answer.status, await problemOf(answer)];
}

/** Reads a replaced stream to its end. */
async function expectReplaced(client: Connection): Promise<void> {
  expect(await client.ended()).toBe("closed");
  const last = client.events.at(-1);
  expect(last).toMatchObject({ event: "fanwire-end", id: undefined });
  expect(JSON.parse(last?.data ?? "")).toEqual({ reason: "replaced", reconnect: false });
  // The server cannot keep an EventSource from reconnecting, so it asks for a late reconnect: after an hour at least.
  expect(client.retries.at(-1)).toBeGreaterThanOrEqual(3_600_000);
}

/** Checks that a client receives events for every client and for itself. */
async function expectReceives(broker: Broker, client: Connection): Promise<void> {
  const { id } = await broker.broadcastTo("tab", "own");
  await broker.broadcast("all");
  expect(await client.until((event) => event.id === id)).toMatchObject({ data: "own" });
  expect((await client.nextData()).data).toBe("all");
}

test(
  "duplicateIds: any other value is a TypeError",
  withBroker(async (setup) => {
    for (const duplicateIds of ["Allow", "", "deny", null, true, 0, ["allow"]]) {
      expect(() => setup.broker({ duplicateIds: duplicateIds as "allow" })).toThrow(TypeError);
    }
    for (const duplicateIds of ["allow", "reject", "replace", undefined] as const) {
      expect(() => setup.broker(duplicateIds ? { duplicateIds } : {})).not.toThrow();
    }
  }),
);

test(
  "duplicateIds: with allow, the default, each connection receives, of one subject or of several",
  withBroker(async (setup) => {
    for (const options of [{}, { duplicateIds: "allow" } as const]) {
      const broker = setup.broker({ ...options, authorize });
      const clients = [
        await setup.join(broker, tab("ann")),
        await setup.join(broker, tab("ann")),
        await setup.join(broker, tab("ben")),
        await setup.join(broker, tab()),
      ];
      expect(broker.stats()).toMatchObject({ clients: 4, ids: 1 });
      expect(await broker.broadcastTo("tab", "each")).toMatchObject({ clients: 4 });
      for (const client of clients) expect((await client.nextData()).data).toBe("each");
    }
  }),
);

test(
  "duplicateIds: reject answers 409 duplicate-id, asks an EventSource to come back, and the first connection keeps receiving",
  withBroker(async (setup) => {
    const disconnects = new Recorder<Disconnect>();
    const broker = setup.broker({ duplicateIds: "reject", onDisconnect: disconnects.record });
    const first = await setup.join(broker, tab());
    expect(await refusal(broker, tab())).toEqual([409, "duplicate-id"]);
    const refused = await setup.connect(broker, tab());
    expect(refused.response.status).toBe(200);
    expect(await refused.ended()).toBe("closed");
    // Without an id, and with a time: the page that is being replaced may not have gone yet.
    expect(refused.events).toEqual([
      { event: "fanwire-end", id: undefined, data: '{"reason":"duplicate-id","reconnect":true}' },
    ]);
    expect(refused.retries).toHaveLength(1);
    await expectReceives(broker, first);
    expect(broker.stats()).toMatchObject({
      clients: 1,
      closing: 0,
      failures: { "duplicate-id": 2 },
      disconnects: {},
    });
    expect(disconnects.all).toEqual([]);
  }),
);

test(
  "duplicateIds: reject accepts the next connection when the first has ended, however it ended",
  withBroker(async (setup) => {
    const disconnects = new Recorder<Disconnect>();
    const broker = setup.broker({
      duplicateIds: "reject",
      timeout: 20,
      tolerance: 1,
      onDisconnect: disconnects.record,
    });
    await (await setup.join(broker, tab())).leave();
    (await setup.join(broker, tab())).abort();
    await setup.join(broker, tab());
    await broker.disconnect("tab");
    // The client has not read its end event.
    await setup.join(broker, tab());
    await broker.broadcast("blocks");
    while ((await disconnects.next()).reason !== "timeout");
    const last = await setup.join(broker, tab());
    await expectReceives(broker, last);
    expect(await refusal(broker, tab())).toEqual([409, "duplicate-id"]);
  }),
);

test(
  "duplicateIds: reject and replace do not affect clients with generated ids",
  withBroker(async (setup) => {
    for (const duplicateIds of ["reject", "replace"] as const) {
      const broker = setup.broker({ duplicateIds });
      for (let client = 0; client < 5; client++) await setup.join(broker);
      expect(broker.stats()).toMatchObject({ clients: 5, ids: 5 });
    }
  }),
);

test(
  "duplicateIds: reject accepts only one of several that connect at the same time",
  withBroker(async (setup) => {
    for (const engine of [setup.engine(), slowEngine(setup.engine(), turn)]) {
      const broker = setup.broker({ duplicateIds: "reject", engine });
      const answers = await Promise.all(
        Array.from({ length: 5 }, () => broker.clientHandler(clientRequest(tab("", { headers: { accept: "*/*" } })))),
      );
      expect(answers.map(({ status }) => status).sort()).toEqual([200, 409, 409, 409, 409]);
      expect(broker.stats()).toMatchObject({ clients: 1, ids: 1, channels: 2 });
      for (const { body } of answers) await body?.cancel();
      expect(broker.stats()).toMatchObject({ clients: 0, channels: 0 });
    }
  }),
);

test(
  "duplicateIds: replace ends the old connection with fanwire-end, the reason and a long retry, and the new one receives",
  withBroker(async (setup) => {
    const disconnects = new Recorder<Disconnect>();
    const broker = setup.broker({ duplicateIds: "replace", retry: 1_000, onDisconnect: disconnects.record });
    const old = await setup.join(broker, tab());
    const [info] = broker.clients();
    const ended = expectReplaced(old);
    const replacement = await setup.join(broker, tab());
    await ended;
    expect(await disconnects.next()).toEqual({ client: info, reason: "replaced" });
    expect(replacement.retries[0]).toBeLessThanOrEqual(1_500);
    await expectReceives(broker, replacement);
    expect(old.data).toEqual([]);
    expect(broker.stats()).toMatchObject({ clients: 1, ids: 1, closing: 0, disconnects: { replaced: 1 } });
    expect(broker.clients().map(({ connectionId }) => connectionId)).not.toContain(info?.connectionId);
  }),
);

test(
  "duplicateIds: with replace, a later end of the old connection does not remove the new one",
  withBroker(async (setup) => {
    const disconnects = new Recorder<Disconnect>();
    const broker = setup.broker({ duplicateIds: "replace", onDisconnect: disconnects.record, inboxLinger: 0 });
    const unread = await setup.join(broker, tab());
    const read = await setup.join(broker, tab());
    const replacement = await setup.join(broker, tab());
    await expectReplaced(read);
    for (const old of [unread, read]) {
      old.abort();
      await old.leave();
      old.abort();
    }
    await turn();
    expect(disconnects.all.map(({ reason }) => reason)).toEqual(["replaced", "replaced"]);
    expect(broker.stats()).toMatchObject({ clients: 1, ids: 1, closing: 0, channels: 2 });
    await expectReceives(broker, replacement);
  }),
);

test(
  "duplicateIds: replace ends a blocked connection without its unread events, and the new one resumes them",
  withBroker(async (setup) => {
    const broker = setup.broker({ duplicateIds: "replace", timeout: 60_000 });
    const old = await setup.join(broker, tab());
    await broker.broadcastTo("tab", "read");
    await old.untilData("read");
    for (const data of ["missed 1", "missed 2"]) await broker.broadcastTo("tab", data);
    const replacement = await setup.join(broker, tab("", { lastEventId: old.lastEventId ?? "" }));
    expect(broker.stats()).toMatchObject({ clients: 1, closing: 1 });
    await expectReplaced(old);
    expect(old.data).toEqual(["read"]);
    expect([(await replacement.nextData()).data, (await replacement.nextData()).data]).toEqual([
      "missed 1",
      "missed 2",
    ]);
    expect(replacement.control("gap")).toEqual([]);
    expect(broker.stats()).toMatchObject({ clients: 1, closing: 0 });
  }),
);

test(
  "duplicateIds: replace aborts a connection that does not read its end event within timeout, and leaves nothing",
  withBroker(async (setup) => {
    const broker = setup.broker({ duplicateIds: "replace", timeout: 40, tolerance: 1_000 });
    const old = await setup.join(broker, tab());
    await broker.broadcast("unread");
    const replacement = await setup.join(broker, tab());
    expect(broker.stats()).toMatchObject({ clients: 1, closing: 1 });
    while (broker.stats().closing > 0) await turn();
    expect(await old.ended()).toBe("closed");
    expect(old.control("end")).toEqual([]);
    await expectReceives(broker, replacement);
    expect(broker.stats()).toMatchObject({ clients: 1, closing: 0, channels: 2 });
  }),
);

test(
  "duplicateIds: with replace, the last of several that connect at the same time stays, and other subjects are not affected",
  withBroker(async (setup) => {
    const broker = setup.broker({ duplicateIds: "replace", engine: slowEngine(setup.engine(), turn), authorize });
    const others = [await setup.join(broker, tab("ann")), await setup.join(broker, tab("ben"))];
    const answers = await Promise.all(Array.from({ length: 4 }, () => broker.clientHandler(clientRequest(tab("ann")))));
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200]);
    expect(broker.stats()).toMatchObject({ clients: 2, ids: 1, disconnects: { replaced: 4 } });
    await expectReplaced(others[0] as Connection);
    // The last one stays.
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
    `duplicateIds: ${duplicateIds} acts only within one subject, and connections without one count as one subject`,
    withBroker(async (setup) => {
      const broker = setup.broker({ duplicateIds, authorize });
      const ann = await setup.join(broker, tab("ann"));
      const ben = await setup.join(broker, tab("ben"));
      const nobody = await setup.join(broker, tab());
      expect(broker.stats()).toMatchObject({ clients: 3, ids: 1 });
      if (allowed === 200) await setup.join(broker, tab("ben"));
      else expect(await refusal(broker, tab("ben"))).toEqual(allowed);
      if (allowed === 200) await setup.join(broker, tab());
      else expect(await refusal(broker, tab())).toEqual(allowed);
      expect(broker.stats()).toMatchObject({ clients: 3, ids: 1 });
      // Another id of the same subject is another client.
      await setup.join(broker, tab("ann", { id: "other" }));
      await expectReceives(broker, ann);
      if (allowed === 200) for (const old of [ben, nobody]) await expectReplaced(old);
      else for (const first of [ben, nobody]) await expectReceives(broker, first);
    }),
  );
}

test(
  "duplicateIds: HEAD, refused requests and aborted requests replace no connection",
  withBroker(async (setup) => {
    const broker = setup.broker({
      duplicateIds: "replace",
      authorize: ({ request, clientId }) => request.headers.get("x-subject") !== "eve" && { clientId: clientId ?? "x" },
    });
    const client = await setup.join(broker, tab());
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
  "duplicateIds: with reject, HEAD does not count as a connection",
  withBroker(async (setup) => {
    const broker = setup.broker({ duplicateIds: "reject" });
    const client = await setup.join(broker, tab());
    const head = new Request("https://fanwire.test/connect?id=tab", { method: "HEAD" });
    expect((await broker.fetch(head)).status).toBe(200);
    await client.leave();
    expect((await broker.fetch(head)).status).toBe(200);
    await expectReceives(broker, await setup.join(broker, tab()));
  }),
);

for (const bound of ["maxClientsPerId", "maxClientsPerSubject"]) {
  test(
    `duplicateIds: replace needs no further slot of ${bound}, any number of times`,
    withBroker(async (setup) => {
      const broker = setup.broker({ duplicateIds: "replace", [bound]: 1, authorize });
      let client = await setup.join(broker, tab("ann"));
      for (let time = 0; time < 5; time++) {
        const ended = expectReplaced(client);
        client = await setup.join(broker, tab("ann"));
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
  "duplicateIds: with replace, every connection of a subject is counted down again",
  withBroker(async (setup) => {
    const broker = setup.broker({ duplicateIds: "replace", maxClientsPerSubject: 2, authorize });
    const clients = [await setup.join(broker, tab("ann")), await setup.join(broker, tab("ann", { id: "other" }))];
    clients.push(await setup.join(broker, tab("ann")));
    for (const client of clients) {
      await client.leave();
      client.abort();
    }
    for (const id of ["one", "two"]) await setup.join(broker, tab("ann", { id }));
    expect(await (await broker.clientHandler(clientRequest(tab("ann")))).text()).toContain('"reason":"at-capacity"');
    expect(broker.stats().clients).toBe(2);
  }),
);

test(
  "duplicateIds: with replace, an event that onDisconnect of the old connection sends reaches the new one",
  withBroker(async (setup) => {
    let broker: Broker | undefined;
    broker = setup.broker({
      duplicateIds: "replace",
      onDisconnect: ({ client, reason }) => broker?.broadcastTo(client.clientId, reason),
    });
    await setup.join(broker, tab());
    const replacement = await setup.join(broker, tab());
    expect((await replacement.nextData()).data).toBe("replaced");
  }),
);
