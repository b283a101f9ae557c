// Changes which channels an open stream reads.
import type { Connection } from "../delivery/connection.ts";
import type { Fanout } from "../delivery/fanout.ts";
import type { ChannelLog } from "../log/channel-log.ts";

/**
 * Adds channels to a connection, from its cursor on: events before it stay out, because the positions of a stream never go back. `announcement`
 * is sent before events of the new channels.
 */
export function joinChannels(
  fanout: Fanout,
  connection: Connection,
  keys: readonly string[],
  announcement: Uint8Array<ArrayBuffer> | undefined,
): void {
  const seq = settle(fanout, connection);
  const added = fanout.subscribe(connection, keys);
  for (const { key, droppedThrough } of added) {
    // The connection has no claim to what was lost before it joined.
    const range = { after: seq, announcedThrough: droppedThrough, excused: true };
    if (droppedThrough > seq) (connection.missingRanges ??= new Map()).set(key, range);
  }
  change(fanout, connection, [...connection.channels, ...added], seq, announcement);
}

/** Removes channels from a connection. `announcement` is sent after the events of these channels that it has received. */
export function leaveChannels(
  fanout: Fanout,
  connection: Connection,
  keys: readonly string[],
  announcement: Uint8Array<ArrayBuffer> | undefined,
): void {
  const seq = settle(fanout, connection);
  const isRemoved = ({ key }: ChannelLog): boolean => keys.includes(key);
  fanout.channels.remove(connection, connection.channels.filter(isRemoved), fanout.log);
  for (const key of keys) connection.missingRanges?.delete(key);
  const rest = connection.channels.filter((channel) => !isRemoved(channel));
  change(fanout, connection, rest, seq, announcement);
}

/** Returns the cursor of a connection. A live one has everything that was offered. */
function settle({ position }: Fanout, connection: Connection): number {
  if (connection.live) connection.cursor = Math.max(connection.cursor, position);
  return connection.cursor;
}

function change(
  fanout: Fanout,
  connection: Connection,
  channels: readonly ChannelLog[],
  seq: number,
  announcement: Uint8Array<ArrayBuffer> | undefined,
): void {
  connection.channels = channels;
  if (announcement) fanout.insert(connection, { isTransient: true, bytes: announcement, seq, keys: [] });
  // A page of history that is being loaded lacks the new channels.
  else if (fanout.cancelHistory(connection)) fanout.requestNext(connection);
}
