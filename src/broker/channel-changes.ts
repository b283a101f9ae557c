// Changes which channels an open stream reads. A change has its place behind everything that was appended before it.
import type { Connection } from "../delivery/connection.ts";
import type { Fanout } from "../delivery/fanout.ts";
import { HEARTBEAT } from "../event/sse-format.ts";
import type { ChannelLog } from "../log/channel-log.ts";

/** The bytes of `fanwire-channels`; a comment if the client is not told. */
type Announcement = Uint8Array<ArrayBuffer>;
export const NO_ANNOUNCEMENT: Announcement = HEARTBEAT;

/** Adds channels to a connection: it receives their events that are appended from now on. Calls `onJoined` when it has what was before. */
export function joinChannels(
  fanout: Fanout,
  connection: Connection,
  keys: readonly string[],
  announcement: Announcement,
  onJoined?: () => void,
): void {
  const { cursor, head } = settle(fanout, connection);
  const added = fanout.subscribe(connection, keys);
  if (cursor < head) {
    // The connection is behind. It has no claim to events of the new channels from before, retained or not.
    const range = { after: cursor, announcedThrough: head, startAfter: head, excused: true };
    for (const key of keys) (connection.missingRanges ??= new Map()).set(key, range);
  }
  connection.channels = [...connection.channels, ...added];
  const item = { isTransient: true, bytes: announcement, seq: head, keys: [] } as const;
  fanout.insert(connection, onJoined ? { ...item, onReached: onJoined } : item);
}

/** Removes channels from a connection, once it has received their events that were appended before. Calls `onLeft` then. */
export function leaveChannels(
  fanout: Fanout,
  connection: Connection,
  keys: ReadonlySet<string>,
  announcement: Announcement,
  onLeft: () => void,
): void {
  const { head: seq } = settle(fanout, connection);
  const onReached = (): void => {
    const isRemoved = ({ key }: ChannelLog): boolean => keys.has(key);
    fanout.channels.remove(connection, connection.channels.filter(isRemoved), fanout.log);
    for (const key of keys) connection.missingRanges?.delete(key);
    connection.channels = connection.channels.filter((channel) => !isRemoved(channel));
    onLeft();
  };
  fanout.insert(connection, { isTransient: true, bytes: announcement, seq, keys: [], onReached });
}

/** Gives a live connection what is pending. Returns its cursor, and the head of the log. */
function settle(fanout: Fanout, connection: Connection): { readonly cursor: number; readonly head: number } {
  fanout.flush();
  const { head } = fanout.log;
  // A client that came from another process may be ahead of what this one holds.
  if (connection.live) connection.cursor = Math.max(connection.cursor, head);
  return { cursor: connection.cursor, head };
}
