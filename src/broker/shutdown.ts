// Ends all streams: spread over a given time, or by force at once.
import { after, now } from "../base/runtime.ts";
import type { Connection } from "../delivery/connection.ts";
import { closingTimeout } from "../delivery/connection-timeouts.ts";
import type { RunningBroker } from "./running-broker.ts";

/** The shortest time between two streams that end one after another, in milliseconds. */
const MIN_STEP_MS = 10;

/** Cuts a shutdown short. May be set before it begins and while it runs. */
export interface Force {
  isOn?: boolean;
  /** Ends the wait that the shutdown is in. */
  endWait?: () => void;
}

/**
 * Sends what is pending, ends every stream with `fanwire-end` over `spreadOver` milliseconds, and leaves the engine. With `force` it waits for
 * nothing: a stream that cannot take `fanwire-end` now is aborted.
 */
export async function shutDown(broker: RunningBroker, spreadOver: number, force: Force): Promise<void> {
  const { settings, fanout, registry, publisher } = broker;
  // The timer of each wait also keeps the process alive: the timeouts of connections do not, and a caller may await `close()`.
  const wait = async (ms: number, done?: Promise<void>): Promise<void> => {
    let cancel: (() => void) | undefined;
    await new Promise<void>((resolve) => {
      cancel = after(ms, resolve);
      force.endWait = resolve;
      if (force.isOn) resolve();
      void done?.then(resolve);
    });
    cancel?.();
  };
  // Appends that the engine was asked for before are sent as well, or refused. The wait also takes one turn at least, so that the broker
  // counts as closed from here on.
  await wait(closingTimeout(settings.timeout), publisher.allAnswered());
  const connections = [...registry.connections];
  const live = connections.filter((connection) => connection.live);
  fanout.close();
  // These could take data until the flush, so they can take their end behind it.
  if (force.isOn) for (const connection of live) connection.live = true;
  const start = now();
  const steps = Math.max(1, Math.min(connections.length, Math.floor(spreadOver / MIN_STEP_MS)));
  for (let step = 0; step < steps; step++) {
    // Measured from the start, because each timer is a little late.
    const waitMs = start + (step * spreadOver) / steps - now();
    if (waitMs > 0) await wait(waitMs);
    for (let index = step; index < connections.length; index += steps)
      registry.closeWithBroker(connections[index] as Connection, force.isOn);
  }
  await wait(Infinity, registry.allClosed());
  // The streams that are left could not take their end.
  registry.timeouts.closing.expire(Infinity);
  fanout.session.close(settings.inboxLinger);
  registry.clear();
}
