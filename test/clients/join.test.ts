// Clients that others wrote, and a connection that ends at every byte while its stream joins a channel: each event comes once.
import { expect, test } from "vitest";
import { createBroker } from "../../src/index.ts";
import type { ClientEvent, Connect } from "./client.ts";
import { CutServer, until } from "./cut-server.ts";

const ADAPTERS = ["eventsource", "eventsource-client", "fanwire-client"] as const;
const BEFORE = ["1", "2", "3"];
const AFTER = ["4", "5"];
/** Sessions at a time. Those that break off before `retry` arrived wait for seconds. */
const SESSIONS = 60;

interface Result {
  /** What the client received of the room. */
  readonly data: readonly string[];
  /** The first response, up to the cut. */
  readonly first: string;
}

/** The client joins the room right after it has connected. From then on its grant has the room, as an application would remember it. */
async function play(connect: Connect, cutAt: number): Promise<Result> {
  let isMember = false;
  const broker = createBroker({
    retry: 20,
    authorize: () => ({ clientId: "me", channels: isMember ? ["room"] : [] }),
    onConnect: async () => {
      if (isMember) return;
      isMember = true;
      await broker.subscribe("me", "room");
      for (const data of BEFORE) await broker.broadcast(data, { channels: "room" });
    },
  });
  const server = new CutServer((request) => broker.fetch(request));
  server.cutAt = cutAt;
  const events: ClientEvent[] = [];
  const data = (): string[] => events.filter(({ type }) => type === "message").map((event) => event.data);
  const disconnect = connect(
    await server.start(),
    (event) => void events.push(event),
    () => undefined,
  );
  const state = (): string => JSON.stringify([cutAt, server.first, events]);
  try {
    if (cutAt < Infinity) {
      await until("the connection was cut", () => server.cutAt === Infinity, state);
      await until("the client is back", () => server.responses === 2, state);
    } else {
      await until("the client has what was published", () => data().length === BEFORE.length, state);
    }
    for (const each of AFTER) await broker.broadcast(each, { channels: "room" });
    await until("the client has the last event", () => data().at(-1) === AFTER.at(-1), state);
    return { data: data(), first: server.first };
  } finally {
    disconnect();
    server.close();
    await broker.close({ force: true });
  }
}

test.for(ADAPTERS)(
  "%s: a stream that breaks off at any byte while it joins a channel loses and repeats nothing",
  async (adapter) => {
    const { connect } = (await import(`./adapters/${adapter}.ts`)) as { connect: Connect };
    const whole = await play(connect, Infinity);
    expect(whole.data).toEqual([...BEFORE, ...AFTER]);
    expect(whole.first).toContain("fanwire-channels");
    // Up to the last event that was published before the cut.
    const length = whole.first.indexOf("data: 3\n");
    const cuts = Array.from({ length }, (_, index) => index + 1);
    const work = async (): Promise<void> => {
      for (let cut = cuts.shift(); cut !== undefined; cut = cuts.shift()) {
        const { data, first } = await play(connect, cut);
        // Without a position it is a new client, which begins when it is back.
        const hasPosition = first.includes("\n\n");
        expect([cut, data]).toEqual([cut, hasPosition ? [...BEFORE, ...AFTER] : AFTER]);
      }
    };
    await Promise.all(Array.from({ length: SESSIONS }, work));
  },
);
