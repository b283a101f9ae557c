// The subject of a publisher, which the broker passes to the engine with each event.
import { expect, test } from "vitest";
import type { Engine } from "../../../src/index.ts";
import { sharedLogTest } from "../../support/engines/shared-log-processes.ts";
import { testPublishing } from "../../support/http/entry-points.ts";
import { eventRequest, withBroker } from "../../support/test-broker.ts";

/** An engine that notes the subject of each event. */
function notingEngine(inner: Engine, subjects: unknown[]): Engine {
  return {
    open(listener) {
      const session = inner.open(listener);
      return {
        ...session,
        append(...event) {
          subjects.push(event[4]);
          return session.append(...event);
        },
      };
    },
  };
}

testPublishing("EngineSession.append: receives the subject of the grant", async (setup, entryPoint) => {
  const subjects: unknown[] = [];
  let subject: string | undefined;
  const broker = setup.broker({
    engine: notingEngine(setup.engine(), subjects),
    authorize: () => ({ subject, channels: ["a"], clientId: "one" }),
  });
  await setup.join(broker, { id: "one" });
  for (subject of ["ada", "eve", undefined])
    for (const query of ["?channel=a", "?id=one"])
      expect((await entryPoint(broker, eventRequest("x", query))).status).toBe(200);
  expect(subjects).toEqual(["ada", "ada", "eve", "eve", undefined, undefined]);
});

test(
  "EngineSession.append: an event of the program, or published with the token, has no subject",
  withBroker(async (setup) => {
    const subjects: unknown[] = [];
    const broker = setup.broker({ engine: notingEngine(setup.engine(), subjects), publishToken: "secret" });
    await broker.broadcast("x");
    const headers = { authorization: "Bearer secret" };
    expect((await broker.fetch(eventRequest("x", "", { headers }))).status).toBe(200);
    expect(subjects).toEqual([undefined, undefined]);
  }),
);

test(
  "SharedLogSession.append: receives the subject of the grant",
  sharedLogTest(async (processes) => {
    const broker = processes.broker({
      authorize: ({ action }) => action === "connect" || { subject: "ada", everybody: true },
    });
    const answer = await processes.clock.advanceUntil(broker.fetch(eventRequest("x")));
    expect(answer.status).toBe(200);
    expect(processes.session(0).subjects).toEqual(["ada"]);
  }),
);
