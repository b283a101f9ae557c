import { expect, test } from "vitest";
import { Connection } from "../support/clients/connection.ts";
import { type TestObject, waitUntil, withObject } from "./support/test-object.ts";
import { publish, transcriptUntil } from "./support/transcript.ts";

// Runs of a subclass: `createRuns(this)` in an object, whose `fetch` a Worker passes requests on to.

async function open(object: TestObject, id: string, headers: Record<string, string> = {}): Promise<Connection> {
  const response = await object.stub.fetch(`https://object/runs/${id}`, { headers });
  return new Connection(response, new AbortController());
}

test(
  "createRuns(this): a reader through the stub gets each event when it is written, and the end",
  withObject({}, async (object) => {
    await object.inside(async ({ runs }) => void (await runs.start("a")).write("1"));
    const reader = await open(object, "a");
    expect((await reader.nextData()).data).toBe("1");
    await object.inside(async ({ runs }) => void (await runs.start("b")).close("ended", "x"));
    expect(await (await object.stub.fetch("https://object/runs/b")).text()).toContain("data: x\n\n");
    await reader.leave();
  }),
);

test(
  "createRuns(this): the producer goes on without a reader, and a late one gets the run whole",
  withObject({}, async (object) => {
    await object.inside(async ({ runs }) => {
      const run = await runs.start("a");
      for (const data of ["1", "2", "3"]) await run.write(data);
      await run.close();
    });
    const late = await open(object, "a");
    expect(await late.ended()).toBe("closed");
    expect(late.data).toEqual(["1", "2", "3"]);
    expect(await object.inside(({ runs }) => runs.state("a"))).toBe("ended");
    const again = await object.stub.fetch("https://object/runs/a", {
      headers: { "last-event-id": late.lastEventId ?? (late.events.at(-1)?.id as string) },
    });
    expect(again.status).toBe(204);
  }),
);

test(
  "createRuns(this): DELETE through the stub stops the producer",
  withObject({}, async (object) => {
    await object.inside(async ({ runs }) => {
      const source = async function* () {
        yield "1";
        await new Promise(() => undefined);
      };
      await runs.start("a", source());
    });
    const reader = await open(object, "a");
    await reader.nextData();
    const stopped = await object.stub.fetch("https://object/runs/a", { method: "DELETE" });
    expect(await stopped.json()).toEqual({ stopped: true });
    expect(await reader.ended()).toBe("closed");
    expect(await object.inside(({ runs }) => runs.state("a"))).toBe("stopped");
  }),
);

test(
  "createRuns(this): a reader that leaves gives its place to another one",
  withObject({ maxClients: 1, heartbeat: 50 }, async (object) => {
    await object.inside(async ({ runs }) => void (await runs.start("a")).write("1"));
    const first = await open(object, "a");
    await first.nextData();
    expect((await object.stub.fetch("https://object/runs/a")).status).toBe(503);
    await first.leave();
    await waitUntil("the place is free", async () => {
      const response = await object.stub.fetch("https://object/runs/a");
      await response.body?.cancel();
      return response.status === 200;
    });
  }),
);

test(
  "createRuns(this): a broker that closes ends readers with an error",
  withObject({}, async (object) => {
    await object.inside(async ({ runs }) => void (await runs.start("a")).write("1"));
    const reader = await open(object, "a");
    await reader.nextData();
    await object.inside((instance) => instance.close());
    expect(await reader.ended()).toBe("errored");
  }),
);

test(
  "createRuns(this): an object that was emptied serves runs with its next broker",
  withObject({ inboxLinger: 0 }, async (object) => {
    await object.inside(async ({ runs }) => expect(await runs.state("a")).toBe("unknown"));
    await object.inside((instance) => instance.alarm());
    expect(await object.tables()).toEqual([]);
    await object.inside(async ({ runs }) => void (await runs.start("a")).close("ended", "1"));
    const reader = await open(object, "a");
    expect(await reader.ended()).toBe("closed");
    expect(reader.data).toEqual(["1"]);
    // One broker for runs and for channels: what ends the second one ends its runs.
    const client = await object.join();
    await publish(object, ["x"]);
    expect(await transcriptUntil(client, "x")).toEqual(["x"]);
    await object.inside(async ({ runs }) => void (await runs.start("b")).write("1"));
    const live = await open(object, "b");
    await live.nextData();
    await object.inside((instance) => instance.close());
    expect(await live.ended()).toBe("errored");
    expect(await object.inside(({ runs }) => runs.state("b").catch(({ code }) => code))).toBe("closed");
  }),
);

test(
  "fetch: a path of no run still needs the object's secret",
  withObject({}, async (object) => {
    expect((await object.stub.fetch("https://object/other")).status).toBe(401);
    expect((await object.stub.fetch("https://object/runs/none")).status).toBe(404);
  }),
);
