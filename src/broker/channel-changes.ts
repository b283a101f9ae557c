// Changes which channels an open stream reads. A change has its place behind everything that was appended before it.
import type { Connection } from "../delivery/connection.ts";
import type { Fanout } from "../delivery/fanout.ts";
import { HEARTBEAT } from "../event/sse-format.ts";
import type { ChannelLog } from "../log/channel-log.ts";

/** The bytes of `fanwire-channels`; a comment if `announce` is off. */
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
  // If the connection is behind, it has no claim to events of the new channels from before, retained or not.
  if (cursor < head) for (const key of keys) startAfter(connection, key, cursor, head);
  connection.channels = [...connection.channels, ...added];
  const item = { isTransient: true, bytes: announcement, seq: head, keys: [] } as const;
  fanout.insert(connection, onJoined ? { ...item, onReached: onJoined } : item);
}

/**
 * Channels that a connection leaves when it has received their events that were appended before, by key. One that it joins again until then has
 * the position of that: it reads the channel from there on.
 */
export type Leaving = Map<string, number | undefined>;

/** Removes channels from a connection, once it has received their events that were appended before. Calls `onLeft` then. */
export function leaveChannels(
  fanout: Fanout,
  connection: Connection,
  leaving: Leaving,
  announcement: Announcement,
  onLeft: (keys: readonly string[]) => void,
): void {
  const { head: seq } = settle(fanout, connection);
  const onReached = (): void => {
    const keys: string[] = [];
    for (const [key, joinedAt] of leaving) {
      connection.missingRanges?.delete(key);
      if (joinedAt === undefined) keys.push(key);
      else if (joinedAt > seq) startAfter(connection, key, seq, joinedAt);
    }
    const isRemoved = ({ key }: ChannelLog): boolean => keys.includes(key);
    fanout.channels.remove(connection, connection.channels.filter(isRemoved), fanout.log);
    connection.channels = connection.channels.filter((channel) => !isRemoved(channel));
    onLeft(keys);
  };
  fanout.insert(connection, { isTransient: true, bytes: announcement, seq, keys: [], onReached });
}

/** Lets a connection read a channel from a later position on. */
function startAfter(connection: Connection, key: string, after: number, through: number): void {
  const range = { after, announcedThrough: through, startAfter: through, excused: true };
  (connection.missingRanges ??= new Map()).set(key, range);
}

/** Gives a live connection what is pending. Returns its cursor, and the head of the log. */
function settle(fanout: Fanout, connection: Connection): { readonly cursor: number; readonly head: number } {
  fanout.flush();
  const { head } = fanout.log;
  // A client that came from another process may be ahead of what this one holds.
  if (connection.live) connection.cursor = Math.max(connection.cursor, head);
  return { cursor: connection.cursor, head };
}
