import { expect, test } from "vitest";
import type { AccessRequest, Broker, CorsOptions } from "../../../src/index.ts";
import { APP, EVIL, get, type Headers, options } from "../../support/http/origins.ts";
import { corsFieldsOf, kinds, look, varyOf } from "../../support/http/responses.ts";
import { scene } from "../../support/test-broker.ts";

// Who may read answers: CORS. No runtime here strips Origin, Cookie or Sec-Fetch-* from a Request, as a browser would.

for (const kind of kinds) {
  test(
    `cors: off, ${kind.what} has no field of it, whoever asks`,
    scene(async (stage) => {
      for (const headers of [{ origin: APP }, { origin: "null" }, {}] as Headers[]) {
        await look(stage, kind, undefined, headers, (answer) => {
          expect([corsFieldsOf(answer), answer.headers.get("vary")]).toEqual([[], null]);
        });
      }
    }),
  );

  test(
    `cors: ${kind.what} may be read by an origin that is named`,
    scene(async (stage) => {
      for (const credentials of [false, true]) {
        // Where the cookie of a page is what is refused, that of an origin that is trusted with it is not.
        const status = kind.what === "403 cross-origin" && credentials ? 200 : kind.status;
        await look(
          stage,
          { ...kind, status },
          { origins: ["https://other.example", APP], credentials },
          { origin: APP },
          (answer) => {
            const { headers } = answer;
            expect(headers.get("access-control-allow-origin")).toBe(APP);
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
    `cors: ${kind.what} has Vary and nothing else for another origin, or for none`,
    scene(async (stage) => {
      for (const headers of [{ origin: EVIL }, { origin: "null" }, {}] as Headers[]) {
        await look(stage, kind, { origins: [APP], credentials: true }, headers, (answer) => {
          expect([corsFieldsOf(answer), varyOf(answer)]).toEqual([[], ["Origin"]]);
        });
      }
    }),
  );

  test(
    `cors: ${kind.what} may be read by every origin with "*", and never with credentials`,
    scene(async (stage) => {
      for (const origin of [APP, EVIL, "null"]) {
        await look(stage, kind, { origins: ["*"] }, { origin }, (answer) => {
          expect(answer.headers.get("access-control-allow-origin")).toBe("*");
          expect(answer.headers.get("access-control-allow-credentials")).toBeNull();
          expect(varyOf(answer)).toContain("Origin");
        });
      }
      await look(stage, kind, { origins: ["*"] }, {}, (answer) => expect(corsFieldsOf(answer)).toEqual([]));
    }),
  );
}

test(
  "cors.origins: an origin that only looks like a named one gets nothing",
  scene(async (stage) => {
    const broker = stage.broker({ cors: { origins: [APP, "http://localhost:3000"] } });
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
      `${APP}, ${EVIL}`,
      `${APP} ${EVIL}`,
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
    for (const origin of [APP, "http://localhost:3000"])
      expect((await broker.fetch(get({ origin }, "?channel="))).headers.get("access-control-allow-origin")).toBe(
        origin,
      );
  }),
);

test(
  "cors.origins: a name with a star in it is no pattern",
  scene(async (stage) => {
    let broker: Broker;
    try {
      broker = stage.broker({ cors: { origins: ["https://*.example"] } });
    } catch (error) {
      expect(error).toBeInstanceOf(TypeError);
      return;
    }
    const answer = await broker.fetch(get({ origin: APP }, "?channel="));
    expect(corsFieldsOf(answer)).toEqual([]);
  }),
);

test(
  "cors.origins: a list that the caller changes later changes nothing",
  scene(async (stage) => {
    const origins = [APP];
    const broker = stage.broker({ cors: { origins } });
    origins.push(EVIL, "*");
    const answer = await broker.fetch(get({ origin: EVIL }, "?channel="));
    expect(corsFieldsOf(answer)).toEqual([]);
  }),
);

test(
  "cors.origins: what a browser would never send as an origin is a TypeError",
  scene(async (stage) => {
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
      const origins = [APP, origin] as string[];
      expect(() => stage.broker({ cors: { origins } }), `${String(origin)}`).toThrow(TypeError);
    }
    for (const cors of [{}, { origins: APP }, { origins: null }, { origins: new Set([APP]) }, true, "*"])
      expect(() => stage.broker({ cors: cors as unknown as CorsOptions })).toThrow(TypeError);
  }),
);

test(
  'cors: "*" together with credentials is a TypeError, wherever it stands',
  scene(async (stage) => {
    for (const origins of [["*"], [APP, "*"], ["*", APP]])
      expect(() => stage.broker({ cors: { origins, credentials: true } })).toThrow(TypeError);
    for (const maxAge of [-1, Number.NaN])
      expect(() => stage.broker({ cors: { origins: [APP], maxAge } })).toThrow(RangeError);
  }),
);

test(
  "cors: a preflight is answered with the methods and headers of its path, and authorize is not asked",
  scene(async (stage) => {
    const asked: AccessRequest[] = [];
    const broker = stage.broker({
      cors: { origins: [APP], credentials: true, maxAge: 5 },
      authorize: (attempt) => {
        asked.push(attempt);
        return false;
      },
    });
    const preflight = (method: string): Headers => ({
      origin: APP,
      "access-control-request-method": method,
      "access-control-request-headers": "authorization,last-event-id",
      cookie: "session=1",
      "sec-fetch-site": "cross-site",
    });
    const answers = [
      [await broker.fetch(options("/connect", preflight("GET"))), "GET, HEAD, OPTIONS"],
      [await broker.clientHandler(options("/anywhere", preflight("GET"))), "GET, HEAD, OPTIONS"],
      [await broker.fetch(options("/broadcast", preflight("POST"))), "POST, OPTIONS"],
      [await broker.eventHandler(options("/anywhere", preflight("POST"))), "POST, OPTIONS"],
    ] as const;
    for (const [answer, methods] of answers) {
      const { headers } = answer;
      expect([answer.status, answer.body]).toEqual([204, null]);
      expect(headers.get("access-control-allow-origin")).toBe(APP);
      expect(headers.get("access-control-allow-credentials")).toBe("true");
      expect(headers.get("access-control-allow-methods")).toBe(methods);
      expect(headers.get("access-control-allow-headers")?.split(", ")).toEqual(
        expect.arrayContaining(["authorization", "content-type", "last-event-id", "idempotency-key"]),
      );
      expect(headers.get("access-control-max-age")).toBe("5");
      expect(varyOf(answer)).toContain("Origin");
    }
    expect(asked).toEqual([]);
    expect(broker.stats()).toMatchObject({ clients: 0, pending: 0, engine: "idle" });
  }),
);

test(
  "cors.maxAge: ten minutes by default, and 0 keeps nothing",
  scene(async (stage) => {
    const preflight = options("/connect", { origin: APP, "access-control-request-method": "GET" });
    for (const [maxAge, told] of [
      [undefined, "600"],
      [0, "0"],
    ] as const) {
      const broker = stage.broker({ cors: { origins: [APP], ...(maxAge === undefined ? {} : { maxAge }) } });
      expect((await broker.fetch(preflight)).headers.get("access-control-max-age")).toBe(told);
    }
  }),
);

test(
  "cors: a preflight gets no more than Vary where the origin is not named, and nothing where cors is off",
  scene(async (stage) => {
    const headers = { origin: EVIL, "access-control-request-method": "POST" };
    const on = await stage.broker({ cors: { origins: [APP] } }).fetch(options("/broadcast", headers));
    expect([on.status, corsFieldsOf(on), varyOf(on)]).toEqual([204, [], ["Origin"]]);
    const off = await stage.broker().fetch(options("/broadcast", headers));
    expect([off.status, corsFieldsOf(off), off.headers.get("vary")]).toEqual([204, [], null]);
    const nowhere = await stage.broker({ cors: { origins: [APP] } }).fetch(options("/x", { ...headers, origin: APP }));
    expect([nowhere.status, nowhere.headers.get("access-control-allow-origin")]).toEqual([404, APP]);
  }),
);

test(
  "cors: fields that a Response has of its own are kept",
  scene(async (stage) => {
    const make = (): Response =>
      new Response("own", { status: 402, headers: { vary: "Accept-Encoding, Cookie", "x-own": "yes" } });
    const broker = stage.broker({ cors: { origins: [APP] }, authorize: make, errorHandler: make });
    for (const request of [get({ origin: APP }), get({ origin: APP }, "?channel=")]) {
      const answer = await broker.fetch(request);
      expect([answer.status, answer.headers.get("x-own"), await answer.text()]).toEqual([402, "yes", "own"]);
      expect(varyOf(answer)).toEqual(["Accept-Encoding", "Cookie", "Origin"]);
    }
    const redirect = stage.broker({
      cors: { origins: [APP] },
      authorize: () => Response.redirect("https://fanwire.test/login"),
    });
    expect((await redirect.fetch(get({ origin: APP }))).headers.get("location")).toBe("https://fanwire.test/login");
  }),
);

test(
  "cors: a Response that is given again and again tells one origin nothing of another",
  scene(async (stage) => {
    // Without a body a Response may be answered any number of times.
    const denied = new Response(null, { status: 403 });
    const broker = stage.broker({
      cors: { origins: [APP, "https://other.example"], credentials: true },
      authorize: () => denied,
    });
    expect((await broker.fetch(get({ origin: APP }))).headers.get("access-control-allow-origin")).toBe(APP);
    for (const origin of [EVIL, "null"]) {
      const answer = await broker.fetch(get({ origin }));
      expect([corsFieldsOf(answer), varyOf(answer)]).toEqual([[], ["Origin"]]);
    }
    expect([...denied.headers]).toEqual([]);
  }),
);
