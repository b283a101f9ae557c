// Publishes events, and writes down what a client read in a form that tests compare.
import type { Published } from "../../../src/index.ts";
import { type Connection, gapOf, isData, seqOf } from "../../support/clients/connection.ts";
import type { ConnectOptions } from "../../support/test-broker.ts";
import type { TestObject } from "./test-object.ts";

/** Reads up to the event with the data `last`. Returns everything the client has read: data of events, and gaps as `channel: (after, through]`. */
export async function transcriptUntil(connection: Connection, last: string): Promise<string[]> {
  await connection.untilData(last);
  return transcript(connection);
}

/** Returns everything a client has read so far. */
export function transcript(connection: Connection): string[] {
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

/**
 * Connects a client and returns the transcript of its replay. The event that marks the end goes to its inbox, so that no channel's retention
 * changes.
 */
export async function replay(object: TestObject, options: ConnectOptions): Promise<string[]> {
  const id = `reader ${++readers}`;
  const client = await object.connect({ id, ...options });
  await object.hub.broadcastTo(options.id ?? id, "the end");
  const parts = await transcriptUntil(client, "the end");
  await client.leave();
  return parts.slice(0, -1);
}

/** Publishes events one after another. Returns their ids. */
export async function publish(
  object: TestObject,
  data: readonly string[],
  channels?: string | readonly string[],
): Promise<string[]> {
  const ids: string[] = [];
  for (const each of data) {
    const { id }: Published = await object.hub.broadcast(each, channels === undefined ? {} : { channels });
    ids.push(id);
  }
  return ids;
}

/** Returns the epoch of an id. */
export const epochOf = (id: string | undefined): string => (id ?? "").replace(/-\d+$/, "");
