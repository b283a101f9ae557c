// `POST /connect`: the parameters in a form, for lists of channels that are too long for a URL.
import { expect } from "vitest";
import { Connection } from "../../support/clients/connection.ts";
import { createSlowBody, testReading } from "../../support/http/entry-points.ts";
import { clientRequest, problemOf } from "../../support/test-broker.ts";

const FORM = "application/x-www-form-urlencoded";

/** A request with a form. `fields` may have names more than once. */
const formRequest = (fields: readonly (readonly [string, string])[], url = "https://fanwire.test/connect"): Request =>
  new Request(url, {
    method: "POST",
    headers: { accept: "text/event-stream", "content-type": FORM },
    body: new URLSearchParams(fields.map(([name, value]) => [name, value])).toString(),
  });

testReading("POST: 100 channels with the longest names in a form", async ({ setup, entryPoint }) => {
  const broker = setup.broker();
  const channels = Array.from({ length: 100 }, (_, index) => `${index}-`.padEnd(256, "x"));
  const response = await entryPoint(
    broker,
    formRequest([["id", "ann"], ...channels.map((name) => ["channel", name] as const)]),
  );
  const client = new Connection(response, new AbortController());
  await client.untilControl("ready");
  expect(broker.clients()).toMatchObject([{ clientId: "ann", channels }]);
  await broker.broadcast("to the last", { channels: channels.at(-1) ?? "" });
  expect((await client.nextData()).data).toBe("to the last");
  await client.leave();
});

testReading(
  "POST: resumes after the header Last-Event-ID, else after lastEventId of the form; the URL's parameters count too",
  async ({ setup, entryPoint }) => {
    const broker = setup.broker();
    const ids: string[] = [];
    for (const data of ["1", "2", "3"]) ids.push((await broker.broadcast(data, { channels: "a" })).id);
    const read = async (request: Request): Promise<string[]> => {
      const client = new Connection(await entryPoint(broker, request), new AbortController());
      await client.untilData("3");
      await client.leave();
      return client.data;
    };
    const query = "https://fanwire.test/connect?channel=a";
    expect(await read(formRequest([["lastEventId", ids[0] ?? ""]], query))).toEqual(["2", "3"]);
    const resumed = formRequest([["lastEventId", ids[0] ?? ""]], query);
    resumed.headers.set("last-event-id", ids[1] ?? "");
    expect(await read(resumed)).toEqual(["3"]);
    expect(await read(formRequest([["from", "earliest"]], query))).toEqual(["1", "2", "3"]);
    expect(await read(formRequest([["last", "2"]], query))).toEqual(["2", "3"]);
  },
);

testReading("POST: anything wrong with the form is refused, and registers nobody", async ({ setup, entryPoint }) => {
  const broker = setup.broker({ maxBodyBytes: 100 });
  const refusal = async (request: Request) => {
    const answer = await entryPoint(broker, request);
    return [answer.status, await problemOf(answer)];
  };
  const withType = (type: string | undefined, body = "channel=a"): Request =>
    new Request("https://fanwire.test/connect", {
      method: "POST",
      body: new TextEncoder().encode(body),
      headers: type === undefined ? {} : { "content-type": type },
    });
  for (const type of [
    undefined,
    "application/json",
    "multipart/form-data; boundary=x",
    "text/plain",
    `${FORM}x`,
    `${FORM}; charset=utf-16`,
  ])
    expect(await refusal(withType(type))).toEqual([415, "unsupported-media-type"]);
  expect(await refusal(withType(FORM, "x".repeat(101)))).toEqual([413, "body-too-large"]);
  expect(await refusal(formRequest([["channels", "a"]]))).toEqual([400, "bad-request"]);
  expect(
    await refusal(
      formRequest([
        ["id", "a"],
        ["id", "b"],
      ]),
    ),
  ).toEqual([400, "bad-id"]);
  expect(await refusal(formRequest([["id", "a"]], "https://fanwire.test/connect?id=a"))).toEqual([400, "bad-id"]);
  expect(
    await refusal(
      formRequest([
        ["lastEventId", "a"],
        ["lastEventId", "a"],
      ]),
    ),
  ).toEqual([400, "bad-request"]);
  expect(await refusal(formRequest([["channel", "fanwire-common"]]))).toEqual([400, "bad-channel"]);
  expect(broker.stats().clients).toBe(0);
  const accepted = await entryPoint(broker, withType(`${FORM};charset=UTF-8`));
  expect(accepted.status).toBe(200);
  await accepted.body?.cancel();
});

testReading(
  "POST: without room, the body is not read, and the client comes back later",
  async ({ setup, entryPoint }) => {
    const broker = setup.broker({ maxClients: 0 });
    const request = formRequest([["channel", "a"]]);
    const client = new Connection(await entryPoint(broker, request), new AbortController());
    expect(await client.ended()).toBe("closed");
    expect(client.events.map(({ data }) => data)).toEqual(['{"reason":"at-capacity","reconnect":true}']);
    expect(request.bodyUsed).toBe(false);
  },
);

testReading("POST: authorize decides about the channels of the form", async ({ setup, entryPoint }) => {
  const broker = setup.broker({ authorize: ({ channels }) => channels.every((name) => name === "open") });
  for (const [channel, status] of [
    ["open", 200],
    ["closed", 403],
  ] as const) {
    const answer = await entryPoint(broker, formRequest([["channel", channel]]));
    expect(answer.status).toBe(status);
    await answer.body?.cancel();
  }
  const forged = formRequest([["channel", "open"]]);
  forged.headers.set("cookie", "session=1");
  forged.headers.set("sec-fetch-site", "cross-site");
  expect((await entryPoint(broker, forged)).status).toBe(403);
  expect(await entryPoint(broker, clientRequest({ channel: "closed" })).then(({ status }) => status)).toBe(403);
});

testReading(
  "POST: a form that is not complete within bodyTimeout is 408 body-timeout, and its place is free again",
  async ({ setup, entryPoint }) => {
    const broker = setup.broker({ bodyTimeout: 20, maxClients: 1 });
    const { init } = createSlowBody("channel=");
    const headers = { accept: "text/event-stream", "content-type": FORM };
    const answer = await entryPoint(
      broker,
      new Request("https://fanwire.test/connect", { ...init, method: "POST", headers }),
    );
    expect([answer.status, await problemOf(answer)]).toEqual([408, "body-timeout"]);
    const response = await entryPoint(broker, formRequest([["channel", "a"]]));
    const client = new Connection(response, new AbortController());
    await client.untilControl("ready");
    await client.leave();
  },
);
