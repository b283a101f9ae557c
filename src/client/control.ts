// Information from the server about the stream: ids, and the data of control events.

/** The data of control events: each has some of these. */
export interface ControlData {
  readonly clientId?: string;
  readonly secret?: string;
  /** Milliseconds between heartbeats, if the server tells them. */
  readonly heartbeat?: number;
  readonly channels?: readonly string[];
  readonly added?: readonly string[];
  readonly removed?: readonly string[];
  /** The application's reason, or that of the end of a stream. */
  readonly reason?: string;
}

/**
 * Compares two ids, `<epoch>-<number>`. Returns a number below 0 if `left` is older, above 0 if it is newer, and NaN if they are of different
 * epochs or no positions.
 */
export function compareIds(left: string, right: string): number {
  const dash = left.lastIndexOf("-") + 1;
  return dash > 0 && right.lastIndexOf("-") === dash - 1 && right.startsWith(left.slice(0, dash))
    ? Number(left.slice(dash)) - Number(right.slice(dash))
    : Number.NaN;
}
