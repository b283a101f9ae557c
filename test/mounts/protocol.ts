// Messages between a test and the server of a mount.
import type { BrokerStats } from "../../src/index.ts";

/** The state of the broker in a server. */
export interface MountState {
  readonly stats: BrokerStats;
  /** The ids of open connections. No two have the same. */
  readonly connected: string[];
  readonly ended: { clientId: string; reason: string }[];
  /** Errors that `onError` received. */
  readonly errors: string[];
}

/** Arguments and results of calls. */
export interface Calls {
  state: [object, MountState];
  /** Publishes numbered events, and awaits each. */
  flood: [{ readonly count: number; readonly bytes: number }, object];
  close: [object, object];
}

export interface Call {
  readonly id: number;
  readonly name: keyof Calls;
  readonly args: object;
}
export interface Reply {
  readonly id: number;
  readonly result: object;
}
