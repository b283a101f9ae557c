// Ends all streams, spread over a given time.
import { after, now } from "../base/runtime.ts";
import type { Connection } from "../delivery/connection.ts";
import { closingTimeout } from "../delivery/connection-timeouts.ts";
import type { RunningBroker } from "./running-broker.ts";

/** The shortest time between two streams that end one after another, in milliseconds. */
const MIN_STEP_MS = 10;

/** Sends what is pending, ends every stream with `fanwire-end` over `spreadOver` milliseconds, and leaves the engine. */
export async function shutDown(broker: RunningBroker, spreadOver: number): Promise<void> {
  const { settings, fanout, registry, publisher } = broker;
  // Appends that the engine was asked for before are sent as well, or refused. The wait also takes one turn at least, so that the broker
  // counts as closed from here on.
  await new Promise<void>((resolve) => {
    const cancel = after(closingTimeout(settings.timeout), resolve);
    void publisher.allAnswered().then(cancel).then(resolve);
  });
  fanout.close();
  const connections = [...registry.connections];
  const start = now();
  const steps = Math.max(1, Math.min(connections.length, Math.floor(spreadOver / MIN_STEP_MS)));
  for (let step = 0; step < steps; step++) {
    // Measured from the start, because each timer is a little late.
    const waitMs = start + (step * spreadOver) / steps - now();
    if (waitMs > 0) await new Promise<void>((resolve) => after(waitMs, resolve));
    for (let index = step; index < connections.length; index += steps)
      registry.closeWithBroker(connections[index] as Connection);
  }
  await registry.allClosed();
  fanout.session.close(settings.inboxLinger);
  registry.clear();
}
