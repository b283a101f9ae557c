// `fanwire/runs/mcp` with the servers and the client of the MCP SDK.
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { describe, expect, onTestFinished, test } from "vitest";
import { type Broker, type BrokerOptions, createBroker, memoryEngine } from "../../src/index.ts";
import { nodeHandler } from "../../src/node/index.ts";
import { mcpEventBus, mcpEventStore } from "../../src/runs/mcp.ts";
import { listen } from "../support/servers/node-server.ts";
import { CHUNKS, cutsOf, forEachCut, Network, textOf } from "./app.ts";
import { load, needsPackages } from "./installed.ts";

const app = await load(() => import("./mcp-app.ts"), "@modelcontextprotocol/sdk");
const mcp = await load(() => import("@modelcontextprotocol/server"), "@modelcontextprotocol/server");

const run = promisify(execFile);

function newBroker(options?: BrokerOptions): Broker {
  const broker = createBroker(options);
  onTestFinished(() => broker.close({ force: true }));
  return broker;
}

describe("EventStore with the SDK's server and client", needsPackages, () => {
  test("wherever a connection breaks off, the call goes on, and each notification arrives once, in order", async () => {
    const { url } = await listen(nodeHandler(app.mcpApp(newBroker(), app.addCount)));
    let broken = 0;
    // A call takes some time, so in CI a third of the cuts has to do.
    const cuts = cutsOf(6, 60_000).filter((_, index) => process.env.CUTS === "all" || index % 3 === 0);
    await forEachCut(cuts, async (cut) => {
      const network = new Network(url, cut);
      const { client, received } = await app.connectTo(url, await network.open());
      const result = await client.callTool({ name: "count", arguments: { count: CHUNKS } });
      expect(result.content).toEqual([{ type: "text", text: String(CHUNKS) }]);
      expect(received.join(""), JSON.stringify(cut)).toBe(textOf(CHUNKS));
      broken += network.broken;
      await client.close();
      network.close();
    });
    expect(broken).toBeGreaterThan(cuts.length / 2);
  });

  test("an unknown id, and one of another session, are 400; a replay holds nothing of another stream", async () => {
    const { url } = await listen(nodeHandler(app.mcpApp(newBroker(), app.addCount)));
    const [a, b] = [await app.connectTo(url), await app.connectTo(url)];
    const ids: string[] = [];
    for (const { client } of [a, b, a])
      await client.callTool({ name: "count", arguments: { count: 3 } }, undefined, {
        onresumptiontoken: (id) => void ids.push(id),
      });
    const replay = (connection: typeof a, id: string): Promise<Response> =>
      fetch(url, {
        headers: {
          ...{ accept: "text/event-stream", "mcp-session-id": connection.transport.sessionId ?? "" },
          ...{ "mcp-protocol-version": connection.transport.protocolVersion ?? "", "last-event-id": id },
        },
      });
    const [first = ""] = ids;
    for (const id of ["x", "x.y", `${first}0`, first.replace(/\.[a-z0-9]+-/, ".other-"), "%.e-1"])
      expect((await replay(a, id)).status, id).toBe(400);
    const reader = (await replay(a, first)).body?.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    while ((text.match(/\n\n/g)?.length ?? 0) < 4) text += (await reader?.read())?.value;
    await expect(Promise.race([reader?.read(), sleep(50, "quiet")])).resolves.toBe("quiet");
    await reader?.cancel();
    expect(text.match(/"data":"[^"]*"|"text":"3"/g)).toEqual([
      '"data":"0 "',
      '"data":"1\\n"',
      '"data":"2\\r\\n"',
      '"text":"3"',
    ]);
    // In the other session the stream has no events. Its answer would begin with the first one.
    await expect(Promise.race([replay(b, first), sleep(100, "quiet")])).resolves.toBe("quiet");
  });

  test.each([
    "server-initialize",
    "ping",
    "tools-list",
    "tools-call-simple-text",
    "tools-call-with-logging",
    "tools-call-with-progress",
    "logging-set-level",
    "server-sse-polling",
    "server-sse-multiple-streams",
  ])("conformance: %s", async (scenario) => {
    const { url } = await listen(nodeHandler(app.mcpApp(newBroker(), app.addConformanceTools)));
    const cwd = await mkdtemp(join(tmpdir(), "fanwire-mcp-"));
    onTestFinished(() => rm(cwd, { recursive: true }));
    const cli = join(import.meta.dirname, "node_modules/@modelcontextprotocol/conformance/dist/index.js");
    const { stdout } = await run(process.execPath, [cli, "server", "--url", url, "--scenario", scenario], { cwd });
    // The suite asks for polling in a version of the protocol that the SDK has no polling for, so it only warns.
    if (scenario !== "server-sse-polling") expect(stdout).toMatch(/Passed: [1-9]/);
    expect(stdout).toContain("0 failed");
  });
});

describe("EventStore", needsPackages, () => {
  const collect = async (store: ReturnType<typeof mcpEventStore>, id: string) => {
    const sent: [string, unknown][] = [];
    const stream = await store.replayEventsAfter(id, { send: async (...item) => void sent.push(item) });
    return { stream, sent };
  };

  test("a replay is bounded, is in order, stays in its stream, and leaves priming events out", async () => {
    const store = mcpEventStore(newBroker());
    const ids: string[] = [];
    for (let n = 0; n < 2_500; n++) {
      ids.push(await store.storeEvent("a/é.1", n % 100 === 0 ? {} : { n }));
      if (n % 50 === 0) await store.storeEvent("b", { other: n });
    }
    const { stream, sent } = await collect(store, ids[0] as string);
    expect(stream).toBe("a/é.1");
    const expected = ids.map((id, n) => [id, { n }]).filter((_, n) => n % 100 !== 0);
    expect(sent).toEqual(expected);
    expect((await collect(store, ids.at(-1) as string)).sent).toEqual([]);
    for (const id of ids) expect(id).toMatch(/^[!-~]+$/);
    expect(await store.getStreamIdForEventId(ids[7] as string)).toBe("a/é.1");
    for (const id of ["", "a", "a.b", "a.b-1", ".x-1", "%.x-1"])
      expect(await store.getStreamIdForEventId(id)).toBe(undefined);
    await expect(collect(store, "a.b-1")).rejects.toMatchObject({ code: "bad-request" });
  });

  test("events that are retained no more: the replay is refused, and skips nothing", async () => {
    const store = mcpEventStore(newBroker({ engine: memoryEngine({ retention: { events: 5 } }) }));
    const ids: string[] = [];
    for (let n = 0; n < 10; n++) ids.push(await store.storeEvent("a", { n }));
    expect(await store.getStreamIdForEventId(ids[2] as string)).toBe(undefined);
    await expect(collect(store, ids[2] as string)).rejects.toMatchObject({ code: "bad-request" });
    expect((await collect(store, ids[5] as string)).sent).toHaveLength(4);
  });

  test("a session continues in another process", async () => {
    const engine = memoryEngine();
    const [one, two] = [newBroker({ engine }), newBroker({ engine })];
    const id = await mcpEventStore(one, "s").storeEvent("a", {});
    await mcpEventStore(one, "s").storeEvent("a", { n: 1 });
    expect((await collect(mcpEventStore(two, "s"), id)).sent.map(([, message]) => message)).toEqual([{ n: 1 }]);
    expect((await collect(mcpEventStore(two, "t"), id)).sent).toEqual([]);
  });
});

describe("ServerEventBus", needsPackages, () => {
  const buses = () => {
    const engine = memoryEngine();
    const errors: unknown[] = [];
    const onError = (error: unknown): void => void errors.push(error);
    const brokers = [newBroker({ engine }), newBroker({ engine })] as const;
    return { one: mcpEventBus(brokers[0], { onError }), two: mcpEventBus(brokers[1], { onError }), errors };
  };

  test("listeners are called at once, each by itself, until they unsubscribe, and in other processes", async () => {
    const { one, two, errors } = buses();
    const [here, there]: [unknown[], unknown[]] = [[], []];
    const listener = (event: unknown): void => void here.push(event);
    const stops = [
      one.subscribe(() => {
        throw new Error("broken");
      }),
      one.subscribe(listener),
      one.subscribe(listener),
      two.subscribe((event) => void there.push(event)),
    ];
    await sleep(20);
    const event = { kind: "resource_updated", uri: "file:///a" };
    one.publish(event);
    expect([here, errors.map(String)]).toEqual([[event, event], ["Error: broken"]]);
    await expect.poll(() => there).toEqual([event]);
    stops[2]?.();
    stops[2]?.();
    two.publish({ kind: "tools_list_changed" });
    await expect.poll(() => here.length).toBe(3);
    for (const stop of stops) stop();
    one.publish(event);
    two.publish(event);
    await sleep(20);
    expect([here.length, there.length]).toEqual([3, 2]);
  });

  test("a handler of the SDK publishes by it, to other processes too", async () => {
    const { one, two } = buses();
    const serverOf = () => new mcp.McpServer({ name: "test", version: "1" });
    const { bus, notify } = mcp.createMcpHandler(serverOf, { bus: one });
    const received: unknown[] = [];
    two.subscribe((event) => void received.push(event));
    bus.subscribe((event) => void received.push(event));
    await sleep(20);
    notify.toolsChanged();
    notify.resourceUpdated("file:///a");
    const events = [{ kind: "tools_list_changed" }, { kind: "resource_updated", uri: "file:///a" }];
    await expect.poll(() => received).toEqual([...events, ...events]);
  });
});
