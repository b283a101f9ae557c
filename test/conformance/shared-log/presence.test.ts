import { expect, test } from "vitest";
import type { Authorize, BrokerOptions } from "../../../src/index.ts";
import { replicas } from "../../support/engines/shared-log-processes.ts";
import { clientRequest, problemOf } from "../../support/test-broker.ts";

// Who is connected, where several processes share a log.

/** Everybody is who the request says, and may have the id that it asks for. */
const authorize: Authorize = ({ request, clientId }) => ({
  subject: request.headers.get("x-user") ?? undefined,
  clientId,
});
const tab = (user: string) => ({ id: "tab", headers: { "x-user": user } });
const options = (duplicateIds: "reject" | "replace"): BrokerOptions => ({ duplicateIds, authorize });

test(
  "duplicateIds: replace ends the old one in another process, and none of another subject",
  replicas(async (world) => {
    const [here, there] = [world.broker(options("replace")), world.broker(options("replace"))];
    const [ann, ben] = [await world.join(here, tab("ann")), await world.join(here, tab("ben"))];
    const again = await world.join(there, tab("ann"));
    expect(await world.clock.until(ann.ended())).toBe("closed");
    expect(ann.control("end").map(({ data }) => JSON.parse(data))).toEqual([{ reason: "replaced", reconnect: false }]);
    await world.publish(there, ["1"]);
    expect([await world.readTo(ben, "1"), await world.readTo(again, "1")]).toEqual([["1"], ["1"]]);
    expect([here.stats().clients, there.stats().clients]).toEqual([1, 1]);
  }),
);

test(
  "duplicateIds: reject; who was refused is not said to be here, however long the process lives on",
  replicas(async (world) => {
    const [here, there] = [world.broker(options("reject")), world.broker(options("reject"))];
    const first = await world.join(here, tab("ann"));
    const refused = await world.clock.until(there.clientHandler(clientRequest(tab("ann"))));
    expect([refused.status, await problemOf(refused)]).toEqual([409, "duplicate-id"]);
    await first.leave();
    // Each process has said again who is here.
    await world.clock.pass(2 * world.session().lease);
    expect(world.store.sessions.map(({ presences }) => presences)).toEqual([[], []]);
    await world.join(there, tab("ann"));
  }),
);
