// `fanwire/hono`: the option `rate`.
import { Hono } from "hono";
import { afterEach, expect, test, vi } from "vitest";
import { sse } from "../../../src/hono.ts";
import { rateLimits } from "../../../src/http/rate-limits.ts";
import { post, withHonoBroker } from "../../support/hono-test-broker.ts";
import { as, byAddress, bySubject, from, stopClock } from "../../support/http/rates.ts";

afterEach(() => {
  vi.restoreAllMocks();
});

test(
  "fanwire/hono: rates hold, by the subject of the app's authorize or by a key",
  withHonoBroker(async (setup) => {
    stopClock();
    const bySubjectOnly = setup.broker({ rate: rateLimits({ publishes: 1 }) });
    const withKey = setup.broker({ rate: rateLimits({ publishes: 1, by: byAddress }), publishToken: "secret" });
    const app = new Hono()
      .route("/users", sse(bySubjectOnly, { authorize: (_, access) => bySubject(access) }))
      .route("/all", sse(withKey));
    const publish = async (path: string, headers: Record<string, string>) => {
      const answer = await app.request(path, post("x", headers));
      return [answer.status, answer.headers.get("retry-after")];
    };
    for (const [path, ann, bob] of [
      ["/users/broadcast", as("ann"), as("bob")],
      ["/all/broadcast", from("::1"), from("::2")],
    ] as const) {
      const token = { authorization: "Bearer secret" };
      expect(await publish(path, { ...token, ...ann })).toEqual([200, null]);
      expect(await publish(path, { ...token, ...ann })).toEqual([429, "1"]);
      expect(await publish(path, { ...token, ...bob })).toEqual([200, null]);
    }
    const limited = setup.broker({ rate: rateLimits({ connects: 1, by: () => "all" }) });
    const streams = new Hono().route("/", sse(limited));
    await setup.join(streams, "/connect");
    const later = await streams.request("/connect", { headers: { accept: "text/event-stream" } });
    expect([later.status, await later.text()]).toEqual([200, expect.stringContaining('"reason":"rate-limited"')]);
  }),
);
