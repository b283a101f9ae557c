import { once } from "node:events";
import { afterEach, describe, expect, test } from "vitest";
import { examples, type Running, startExample } from "../support/example.ts";
import { SocketClient } from "../support/socket-client.ts";

describe.each(examples)("examples/%s", (name) => {
  let running: Running;
  afterEach(() => running.child.kill("SIGKILL"));

  async function start(env: Record<string, string>, last: RegExp): Promise<Running> {
    running = await startExample(name, env, last);
    return running;
  }

  test("prints its URL and a curl line that works, and serves the page", async () => {
    const { output, url } = await start({}, /curl .*\n/);
    expect(await (await fetch(url)).text()).toContain("<html");

    const client = await new SocketClient(`${url}connect`).ready();
    // The line as it is printed, taken apart as a shell would.
    const [, header = "", data = "", target = ""] = /^curl -H "(.*)" -d "(.*)" (\S+)$/m.exec(output) ?? [];
    const [field = "", value = ""] = header.split(": ");
    const answer = await fetch(target, { method: "POST", headers: { [field]: value }, body: data });
    expect([answer.status, await answer.json()]).toEqual([200, { id: expect.any(String), clients: 1 }]);
    await client.until(() => client.data.includes(data));
    expect((await fetch(target, { method: "POST", body: data })).status).toBe(401);
  });

  test("takes PUBLISH_TOKEN from its environment, and does not print it", async () => {
    const { output, url } = await start({ PUBLISH_TOKEN: "of my own" }, /http:\S+\s/);
    const answer = await fetch(`${url}broadcast`, {
      method: "POST",
      headers: { authorization: "Bearer of my own" },
      body: "x",
    });
    expect(answer.status).toBe(200);
    expect(output).not.toContain("of my own");
  });

  test("ends by itself on SIGTERM, with a client that reads and one that never does", async () => {
    const { child, url } = await start({ PUBLISH_TOKEN: "t" }, /http:\S+\s/);
    const reads = await new SocketClient(`${url}connect`).ready();
    const stuck = await new SocketClient(`${url}connect`).ready();
    stuck.stall();
    const blocked = async (): Promise<number> =>
      ((await (await fetch(`${url}stats`)).json()) as { blocked: number }).blocked;
    while ((await blocked()) === 0) {
      await fetch(`${url}broadcast`, {
        method: "POST",
        headers: { authorization: "Bearer t" },
        body: "x".repeat(60_000),
      });
    }
    child.kill("SIGTERM");
    const [code, signal] = await once(child, "exit");
    expect([code, signal]).toEqual([0, null]);
    await reads.end();
    expect(reads.control("end").map(({ data }) => JSON.parse(data).reason)).toEqual(["closing"]);
    stuck.reset();
  });
});
