// Channels of an open stream, where a process knows less of the shared log than the client that came to it from another process.
import { expect, test } from "vitest";
import { joinChannels, leaveChannels } from "../../../src/broker/channel-changes.ts";
import type { Connection } from "../../../src/delivery/connection.ts";
import type { Fanout } from "../../../src/delivery/fanout.ts";
import { ChannelLog } from "../../../src/log/channel-log.ts";
import type { Transient } from "../../../src/log/transient.ts";

const BYTES = new Uint8Array();

/** A connection at position 10, in a process whose log has reached position 5. */
function openStream(live: boolean): { connection: Connection; fanout: Fanout; inserted: Transient[] } {
  const inserted: Transient[] = [];
  const connection = { live, cursor: 10, channels: [new ChannelLog("#a", 0)], missingRanges: undefined };
  const fanout = {
    log: { head: 5, unpin: () => undefined },
    channels: { remove: () => true },
    flush: () => undefined,
    subscribe: (_: unknown, keys: readonly string[]) => keys.map((key) => new ChannelLog(key, 5)),
    insert: (_: unknown, item: Transient) => void inserted.push(item),
  };
  return { connection: connection as unknown as Connection, fanout: fanout as unknown as Fanout, inserted };
}

for (const live of [true, false]) {
  test(`subscribe: a client that is ahead of its process keeps its position, ${live ? "live" : "not live"}`, () => {
    const { connection, fanout, inserted } = openStream(live);
    joinChannels(fanout, connection, ["#b"], BYTES);
    expect(connection).toMatchObject({
      cursor: 10,
      channels: [{ key: "#a" }, { key: "#b" }],
      missingRanges: undefined,
    });
    expect(inserted).toHaveLength(1);
    leaveChannels(fanout, connection, new Map([["#a", undefined]]), BYTES, () => undefined);
    inserted[1]?.onReached?.();
    expect(connection).toMatchObject({ cursor: 10, channels: [{ key: "#b" }] });
  });
}
