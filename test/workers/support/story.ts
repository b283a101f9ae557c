import type { Published } from "../../../src/index.ts";
import { type Connection, gapOf, isData, seqOf } from "../../support/clients/connection.ts";
import type { Wish } from "../../support/test-broker.ts";
import type { Room } from "./room.ts";

/** What a client read, up to an event: the data of events, and gaps as `channel: (after, through]`. */
export async function story(connection: Connection, last: string): Promise<string[]> {
  await connection.untilData(last);
  return told(connection);
}

/** What a client has read so far. */
export function told(connection: Connection): string[] {
  const parts: string[] = [];
  for (const event of connection.events) {
    if (isData(event)) {
      parts.push(event.data);
    } else if (event.event === "fanwire-gap") {
      const { channels, after, through } = gapOf(event);
      parts.push(`${channels.join(" ")}: (${after === null ? "?" : seqOf(after)}, ${seqOf(through)}]`);
    }
  }
  return parts;
}

let readers = 0;

/** What a client that comes with this wish is given of what there is. The mark at its end is of its inbox, so that no channel's retention is changed. */
export async function replay(room: Room, wish: Wish): Promise<string[]> {
  const id = `reader ${++readers}`;
  const client = await room.connect({ id, ...wish });
  await room.hub.broadcastTo(wish.id ?? id, "the end");
  const parts = await story(client, "the end");
  await client.leave();
  return parts.slice(0, -1);
}

/** Publishes one after the other. */
export async function publish(
  room: Room,
  data: readonly string[],
  channel?: string | readonly string[],
): Promise<string[]> {
  const ids: string[] = [];
  for (const each of data) {
    const { id }: Published = await room.hub.broadcast(each, channel === undefined ? {} : { channels: channel });
    ids.push(id);
  }
  return ids;
}

/** The part of an id before its number. */
export const epochOf = (id: string | undefined): string => (id ?? "").replace(/-\d+$/, "");
