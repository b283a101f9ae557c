// CORS: which origins may read which answers. No runtime here removes Origin, Cookie or Sec-Fetch-* from a Request, as a browser would.
import { expect, test } from "vitest";
import type { AccessRequest, Broker, CorsOptions } from "../../../src/index.ts";
import { APP_ORIGIN, EVIL_ORIGIN, get, type HeaderFields, options } from "../../support/http/origins.ts";
import { checkResponse, corsFieldsOf, responseKinds, varyOf } from "../../support/http/responses.ts";
import { withBroker } from "../../support/test-broker.ts";

for (const kind of responseKinds) {
  test(
    `cors: without it, ${kind.name} has no CORS field for any origin`,
    withBroker(async (setup) => {
      for (const headers of [{ origin: APP_ORIGIN }, { origin: "null" }, {}] as HeaderFields[]) {
        await checkResponse(setup, kind, undefined, headers, (answer) => {
          expect([corsFieldsOf(answer), answer.headers.get("vary")]).toEqual([[], null]);
        });
      }
    }),
  );

  test(
    `cors: ${kind.name} may be read by a listed origin`,
    withBroker(async (setup) => {
      for (const credentials of [false, true]) {
        // With `credentials` the listed origin is trusted with cookies, so the request is not refused as cross-origin.
        const status = kind.name === "403 cross-origin" && credentials ? 200 : kind.status;
        await checkResponse(
          setup,
          { ...kind, status },
          { origins: ["https://other.example", APP_ORIGIN], credentials },
          { origin: APP_ORIGIN },
          (answer) => {
            const { headers } = answer;
            expect(headers.get("access-control-allow-origin")).toBe(APP_ORIGIN);
            expect(headers.get("access-control-allow-credentials")).toBe(credentials ? "true" : null);
            expect(headers.get("access-control-expose-headers")).toBe("fanwire-client-id, retry-after");
            expect(headers.get("access-control-allow-methods")).toBeNull();
            expect(varyOf(answer)).toContain("Origin");
          },
        );
      }
    }),
  );

  test(
    `cors: ${kind.name} has only Vary for another origin, and for a request without one`,
    withBroker(async (setup) => {
      for (const headers of [{ origin: EVIL_ORIGIN }, { origin: "null" }, {}] as HeaderFields[]) {
        await checkResponse(setup, kind, { origins: [APP_ORIGIN], credentials: true }, headers, (answer) => {
          expect([corsFieldsOf(answer), varyOf(answer)]).toEqual([[], ["Origin"]]);
        });
      }
    }),
  );

  test(
    `cors: with "*", ${kind.name} may be read by every origin, but not with credentials`,
    withBroker(async (setup) => {
      for (const origin of [APP_ORIGIN, EVIL_ORIGIN, "null"]) {
        await checkResponse(setup, kind, { origins: ["*"] }, { origin }, (answer) => {
          expect(answer.headers.get("access-control-allow-origin")).toBe("*");
          expect(answer.headers.get("access-control-allow-credentials")).toBeNull();
          expect(varyOf(answer)).toContain("Origin");
        });
      }
      await checkResponse(setup, kind, { origins: ["*"] }, {}, (answer) => expect(corsFieldsOf(answer)).toEqual([]));
    }),
  );
}

test(
  "cors.origins: an origin that only looks like a listed one gets no CORS field",
  withBroker(async (setup) => {
    const broker = setup.broker({ cors: { origins: [APP_ORIGIN, "http://localhost:3000"] } });
    const similar = [
      "http://app.example",
      "https://app.example:8443",
      "https://app.example:443",
      "https://APP.example",
      "HTTPS://app.example",
      "https://app.example/",
      "https://app.example.",
      "https://app.example.evil.test",
      "https://evil-app.example",
      "https://sub.app.example",
      "https://app.exampl",
      "https://app-example",
      "https://user@app.example",
      "app.example",
      "//app.example",
      `${APP_ORIGIN}, ${EVIL_ORIGIN}`,
      `${APP_ORIGIN} ${EVIL_ORIGIN}`,
      "http://localhost",
      "http://localhost:30000",
      "https://localhost:3000",
      "null",
      "*",
      "",
    ];
    for (const origin of similar) {
      const answer = await broker.fetch(get({ origin }, "?channel="));
      expect([origin, corsFieldsOf(answer), varyOf(answer)]).toEqual([origin, [], ["Origin"]]);
      const preflight = await broker.fetch(options("/connect", { origin, "access-control-request-method": "GET" }));
      expect([origin, corsFieldsOf(preflight), varyOf(preflight)]).toEqual([origin, [], ["Origin"]]);
    }
    for (const origin of [APP_ORIGIN, "http://localhost:3000"])
      expect((await broker.fetch(get({ origin }, "?channel="))).headers.get("access-control-allow-origin")).toBe(
        origin,
      );
  }),
);

test(
  "cors.origins: a star inside an origin is not a pattern",
  withBroker(async (setup) => {
    let broker: Broker;
    try {
      broker = setup.broker({ cors: { origins: ["https://*.example"] } });
    } catch (error) {
      expect(error).toBeInstanceOf(TypeError);
      return;
    }
    const answer = await broker.fetch(get({ origin: APP_ORIGIN }, "?channel="));
    expect(corsFieldsOf(answer)).toEqual([]);
  }),
);

test(
  "cors.origins: the broker copies the list, so a later change has no effect",
  withBroker(async (setup) => {
    const origins = [APP_ORIGIN];
    const broker = setup.broker({ cors: { origins } });
    origins.push(EVIL_ORIGIN, "*");
    const answer = await broker.fetch(get({ origin: EVIL_ORIGIN }, "?channel="));
    expect(corsFieldsOf(answer)).toEqual([]);
  }),
);

test(
  "cors.origins: a string that no browser sends as an origin is a TypeError",
  withBroker(async (setup) => {
    const wrong: readonly unknown[] = [
      "https://app.example/",
      "https://app.example/path",
      "https://app.example?x",
      "https://app.example#x",
      "https://user@app.example",
      "https://app.example:443",
      "http://app.example:80",
      "https://APP.example",
      " https://app.example",
      "https://app.example ",
      "https://bücher.example",
      "app.example",
      "//app.example",
      "localhost:3000",
      "null",
      "",
      "**",
      "file:///page.html",
      "data:text/html,x",
      "about:blank",
      7,
      null,
      undefined,
      {},
      /app/,
    ];
    for (const origin of wrong) {
      const origins = [APP_ORIGIN, origin] as string[];
      expect(() => setup.broker({ cors: { origins } }), `${String(origin)}`).toThrow(TypeError);
    }
    for (const cors of [{}, { origins: APP_ORIGIN }, { origins: null }, { origins: new Set([APP_ORIGIN]) }, true, "*"])
      expect(() => setup.broker({ cors: cors as unknown as CorsOptions })).toThrow(TypeError);
  }),
);

test(
  "cors.origins: origins of app web views are accepted",
  withBroker(async (setup) => {
    const origins = ["capacitor://localhost", "chrome-extension://abcdefgh", "https://app.example"];
    const broker = setup.broker({ cors: { origins } });
    for (const origin of origins) {
      const answer = await broker.fetch(get({ origin }));
      expect(answer.headers.get("access-control-allow-origin")).toBe(origin);
      await answer.body?.cancel();
    }
    for (const origin of ["capacitor://localhost/", "capacitor://", "capacitor://a b", "javascript:alert(1)"])
      expect(() => setup.broker({ cors: { origins: [origin] } })).toThrow(TypeError);
  }),
);

test(
  'cors: "*" together with credentials is a TypeError, at any place in the list',
  withBroker(async (setup) => {
    for (const origins of [["*"], [APP_ORIGIN, "*"], ["*", APP_ORIGIN]])
      expect(() => setup.broker({ cors: { origins, credentials: true } })).toThrow(TypeError);
    for (const maxAge of [-1, Number.NaN])
      expect(() => setup.broker({ cors: { origins: [APP_ORIGIN], maxAge } })).toThrow(RangeError);
  }),
);

test(
  "cors: a preflight is answered with the methods and header fields of its path, and authorize is not called",
  withBroker(async (setup) => {
    const accesses: AccessRequest[] = [];
    const broker = setup.broker({
      cors: { origins: [APP_ORIGIN], credentials: true, maxAge: 5 },
      authorize: (access) => {
        accesses.push(access);
        return false;
      },
    });
    const preflight = (method: string): HeaderFields => ({
      origin: APP_ORIGIN,
      "access-control-request-method": method,
      "access-control-request-headers": "authorization,last-event-id",
      cookie: "session=1",
      "sec-fetch-site": "cross-site",
    });
    const answers = [
      [await broker.fetch(options("/connect", preflight("GET"))), "GET, HEAD, POST, OPTIONS"],
      [await broker.clientHandler(options("/anywhere", preflight("GET"))), "GET, HEAD, POST, OPTIONS"],
      [await broker.fetch(options("/broadcast", preflight("POST"))), "POST, OPTIONS"],
      [await broker.eventHandler(options("/anywhere", preflight("POST"))), "POST, OPTIONS"],
    ] as const;
    for (const [answer, methods] of answers) {
      const { headers } = answer;
      expect([answer.status, answer.body]).toEqual([204, null]);
      expect(headers.get("access-control-allow-origin")).toBe(APP_ORIGIN);
      expect(headers.get("access-control-allow-credentials")).toBe("true");
      expect(headers.get("access-control-allow-methods")).toBe(methods);
      expect(headers.get("access-control-allow-headers")?.split(", ")).toEqual(
        expect.arrayContaining(["authorization", "content-type", "last-event-id", "idempotency-key"]),
      );
      expect(headers.get("access-control-max-age")).toBe("5");
      expect(varyOf(answer)).toContain("Origin");
    }
    expect(accesses).toEqual([]);
    expect(broker.stats()).toMatchObject({ clients: 0, pending: 0, engine: "idle" });
  }),
);

test(
  "cors.maxAge: is ten minutes by default, and may be 0",
  withBroker(async (setup) => {
    const preflight = options("/connect", { origin: APP_ORIGIN, "access-control-request-method": "GET" });
    for (const [maxAge, expected] of [
      [undefined, "600"],
      [0, "0"],
    ] as const) {
      const broker = setup.broker({ cors: { origins: [APP_ORIGIN], ...(maxAge === undefined ? {} : { maxAge }) } });
      expect((await broker.fetch(preflight)).headers.get("access-control-max-age")).toBe(expected);
    }
  }),
);

test(
  "cors: a preflight gets only Vary for an origin that is not listed, and no field without cors",
  withBroker(async (setup) => {
    const headers = { origin: EVIL_ORIGIN, "access-control-request-method": "POST" };
    const on = await setup.broker({ cors: { origins: [APP_ORIGIN] } }).fetch(options("/broadcast", headers));
    expect([on.status, corsFieldsOf(on), varyOf(on)]).toEqual([204, [], ["Origin"]]);
    const off = await setup.broker().fetch(options("/broadcast", headers));
    expect([off.status, corsFieldsOf(off), off.headers.get("vary")]).toEqual([204, [], null]);
    const nowhere = await setup
      .broker({ cors: { origins: [APP_ORIGIN] } })
      .fetch(options("/x", { ...headers, origin: APP_ORIGIN }));
    expect([nowhere.status, nowhere.headers.get("access-control-allow-origin")]).toEqual([404, APP_ORIGIN]);
  }),
);

test(
  "cors: header fields of the application's own Response are kept",
  withBroker(async (setup) => {
    const make = (): Response =>
      new Response("own", { status: 402, headers: { vary: "Accept-Encoding, Cookie", "x-own": "yes" } });
    const broker = setup.broker({ cors: { origins: [APP_ORIGIN] }, authorize: make, errorHandler: make });
    for (const request of [get({ origin: APP_ORIGIN }), get({ origin: APP_ORIGIN }, "?channel=")]) {
      const answer = await broker.fetch(request);
      expect([answer.status, answer.headers.get("x-own"), await answer.text()]).toEqual([402, "yes", "own"]);
      expect(varyOf(answer)).toEqual(["Accept-Encoding", "Cookie", "Origin"]);
    }
    const redirect = setup.broker({
      cors: { origins: [APP_ORIGIN] },
      authorize: () => Response.redirect("https://fanwire.test/login"),
    });
    expect((await redirect.fetch(get({ origin: APP_ORIGIN }))).headers.get("location")).toBe(
      "https://fanwire.test/login",
    );
  }),
);

test(
  "cors: a Response that is returned again and again does not reveal one origin to another",
  withBroker(async (setup) => {
    // A Response without a body may be sent any number of times.
    const denied = new Response(null, { status: 403 });
    const broker = setup.broker({
      cors: { origins: [APP_ORIGIN, "https://other.example"], credentials: true },
      authorize: () => denied,
    });
    expect((await broker.fetch(get({ origin: APP_ORIGIN }))).headers.get("access-control-allow-origin")).toBe(
      APP_ORIGIN,
    );
    for (const origin of [EVIL_ORIGIN, "null"]) {
      const answer = await broker.fetch(get({ origin }));
      expect([corsFieldsOf(answer), varyOf(answer)]).toEqual([[], ["Origin"]]);
    }
    expect([...denied.headers]).toEqual([]);
  }),
);
