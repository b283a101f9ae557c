// The connections of several processes that share a log.
import { expect, test } from "vitest";
import type { Authorize, BrokerOptions } from "../../../src/index.ts";
import { sharedLogTest } from "../../support/engines/shared-log-processes.ts";
import { clientRequest, problemOf } from "../../support/test-broker.ts";

/** Takes subject and client id from the request. */
const authorize: Authorize = ({ request, clientId }) => ({
  subject: request.headers.get("x-user") ?? undefined,
  clientId,
});
const tab = (user: string, accept = "text/event-stream") => ({ id: "tab", headers: { accept, "x-user": user } });
const options = (duplicateIds: "reject" | "replace"): BrokerOptions => ({ duplicateIds, authorize });

test(
  "duplicateIds: replace ends the old connection in another process, and none of another subject",
  sharedLogTest(async (processes) => {
    const [here, there] = [processes.broker(options("replace")), processes.broker(options("replace"))];
    const [ann, ben] = [await processes.join(here, tab("ann")), await processes.join(here, tab("ben"))];
    const newAnn = await processes.join(there, tab("ann"));
    expect(await processes.clock.advanceUntil(ann.ended())).toBe("closed");
    expect(ann.control("end").map(({ data }) => JSON.parse(data))).toEqual([{ reason: "replaced", reconnect: false }]);
    await processes.publish(there, ["1"]);
    expect([await processes.readThrough(ben, "1"), await processes.readThrough(newAnn, "1")]).toEqual([["1"], ["1"]]);
    expect([here.stats().clients, there.stats().clients]).toEqual([1, 1]);
  }),
);

test(
  "duplicateIds: reject; a refused connection is not registered, not even by a renewal",
  sharedLogTest(async (processes) => {
    const [here, there] = [processes.broker(options("reject")), processes.broker(options("reject"))];
    const first = await processes.join(here, tab("ann"));
    const refused = await processes.clock.advanceUntil(there.clientHandler(clientRequest(tab("ann", "*/*"))));
    expect([refused.status, await problemOf(refused)]).toEqual([409, "duplicate-id"]);
    await first.leave();
    // Each process has renewed its registrations.
    await processes.clock.advance(2 * processes.session().lease);
    expect(processes.store.sessions.map(({ presences }) => presences)).toEqual([[], []]);
    await processes.join(there, tab("ann"));
  }),
);
