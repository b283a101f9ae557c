// Overrides of `clientHandler` and `eventHandler`: values that are refused, with an error that says what to write.
import { expect, test } from "vitest";
import type { Broker, EventOverrides } from "../../../src/index.ts";
import { clientRequest, codeOf, eventRequest, problemOf, withBroker } from "../../support/test-broker.ts";

type Handler = "clientHandler" | "eventHandler";

/** Calls a handler with a second argument of any type. Returns the error that the call rejects with. */
async function refusal(broker: Broker, handler: Handler, overrides: unknown): Promise<Error> {
  const request = handler === "clientHandler" ? clientRequest() : eventRequest("x");
  const call = broker[handler] as (request: Request, overrides: unknown) => Promise<Response>;
  return await call(request, overrides).then(
    () => expect.unreachable(`${handler}() accepted its overrides`),
    (error: unknown) => error as Error,
  );
}

/** Like Bun's server, Deno's `ServeHandlerInfo` and Hono's context: an instance of a class, with members named like overrides. */
class FrameworkContext {
  readonly clientId = "victim";
  readonly authorize = (): boolean => true;
}

const secondArguments: readonly (readonly [what: string, value: unknown])[] = [
  ["a framework's context", new FrameworkContext()],
  ["a function, such as the next middleware", () => undefined],
  ["a list", ["victim"]],
  ["a Map", new Map([["clientId", "victim"]])],
  ["a Response", new Response()],
  ["an object that inherits overrides", Object.create({ clientId: "victim" })],
  ["a string", "victim"],
  ["a number", 0],
  ["null", null],
];
for (const handler of ["clientHandler", "eventHandler"] as const) {
  for (const [what, value] of secondArguments) {
    test(
      `${handler}(): ${what} as second argument is a TypeError that contains the line to write`,
      withBroker(async (setup) => {
        const broker = setup.broker();
        const error = await refusal(broker, handler, value);
        expect(error).toBeInstanceOf(TypeError);
        expect(error.message).toContain(`(request) => broker.${handler}(request)`);
        expect(broker.stats()).toMatchObject({ clients: 0, published: 0, engine: "idle" });
      }),
    );
  }
}

test(
  "clientHandler(), eventHandler(): without a second argument, or with undefined, there are no overrides",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const answer = await broker.clientHandler(clientRequest(), undefined);
    expect(answer.status).toBe(200);
    await answer.body?.cancel();
    expect((await broker.eventHandler(eventRequest("x"), undefined)).status).toBe(200);
  }),
);

const renamed: readonly (readonly [handler: Handler, oldName: string, newName: string])[] = [
  ["clientHandler", "id", "clientId"],
  ["clientHandler", "channel", "channels"],
  ["eventHandler", "id", "clientId"],
  ["eventHandler", "channel", "channels"],
  ["eventHandler", "key", "idempotencyKey"],
  ["eventHandler", "guarded", "requireToken"],
];
for (const [handler, oldName, newName] of renamed) {
  test(
    `${handler}(): the old override ${oldName} is refused with an error that names ${newName}`,
    withBroker(async (setup) => {
      const broker = setup.broker();
      const error = await refusal(broker, handler, { [oldName]: "x" });
      expect(error).toBeInstanceOf(TypeError);
      expect(error.message).toContain(`"${oldName}"`);
      expect(error.message).toContain(`"${newName}"`);
      expect(broker.stats()).toMatchObject({ clients: 0, published: 0 });
    }),
  );
}

test(
  "Overrides: a server that a router passes as second argument does not count as overrides",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const eve = await setup.join(broker, { id: "eve" });
    // Like Bun's server: an instance of a class, with an empty id.
    class Server {
      readonly clientId = "";
    }
    expect(await codeOf(broker.eventHandler(eventRequest("secret", "?id=alice"), new Server()))).toBe("TypeError");
    expect(await codeOf(broker.clientHandler(clientRequest({ id: "alice" }), new Server()))).toBe("TypeError");
    await broker.broadcast("end");
    expect((await eve.nextData()).data).toBe("end");
  }),
);

test(
  "EventOverrides: an empty id or list is refused, and never means every client",
  withBroker(async (setup) => {
    const broker = setup.broker();
    await setup.join(broker, { id: "eve" });
    const cases: (readonly [EventOverrides, string])[] = [
      [{ clientId: "" }, "bad-id"],
      [{ channels: [] }, "bad-channel"],
    ];
    for (const [overrides, code] of cases) {
      const response = await broker.eventHandler(eventRequest("secret", "?id=eve"), overrides);
      expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([400, code]);
    }
    expect(await codeOf(broker.broadcast("secret", { channels: [] }))).toBe("bad-channel");
    expect(broker.stats().published).toBe(0);
  }),
);

test(
  "from, last: of an override or of listen() have the bounds of the query, and an override replaces both of the query",
  withBroker(async (setup) => {
    const broker = setup.broker();
    for (const data of ["1", "2", "3"]) await broker.broadcast(data);
    const wrong: readonly object[] = [
      { last: 0 },
      { last: 1_001 },
      { last: 1.5 },
      { last: "5" },
      { last: Number.NaN },
      { last: null },
      { from: "newest" },
      { from: "latest", last: 5 },
    ];
    for (const start of wrong) {
      const answer = await broker.clientHandler(clientRequest(), start);
      expect([answer.status, await problemOf(answer)]).toEqual([400, "bad-request"]);
      expect(() => broker.listen(start)).toThrow(TypeError);
    }
    const byLast = await setup.join(broker, { query: { from: "earliest" }, overrides: { last: 2 } });
    expect([(await byLast.next()).data, (await byLast.next()).data]).toEqual(["2", "3"]);
    const byFrom = await setup.join(broker, { query: { last: "1" }, overrides: { from: "earliest" } });
    expect((await byFrom.next()).data).toBe("1");
  }),
);

test(
  "broadcast(), broadcastTo(), listen(), handlers: an unknown option is refused, because it may be a misspelled target",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const wrong = { channle: "admins" } as object;
    expect(await codeOf(broker.broadcast("secret", wrong))).toBe("TypeError");
    expect(await codeOf(broker.broadcast("secret", "admins" as unknown as object))).toBe("TypeError");
    expect(await codeOf(broker.broadcastTo("one", "x", wrong))).toBe("TypeError");
    expect(() => broker.listen(wrong)).toThrow(TypeError);
    expect(() => broker.listen({ from: "newest" as "earliest" })).toThrow(TypeError);
    expect(await codeOf(broker.clientHandler(clientRequest(), { channel: "public" } as object))).toBe("TypeError");
    expect(await codeOf(broker.clientHandler(clientRequest(), { authorise: () => false } as object))).toBe("TypeError");
    expect(await codeOf(broker.eventHandler(eventRequest("x"), { channel: "public" } as object))).toBe("TypeError");
    expect(broker.stats()).toMatchObject({ clients: 0, published: 0 });
  }),
);
