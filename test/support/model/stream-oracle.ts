// The oracle of what happens to an open stream: channels that it joins and leaves, and ephemeral events.
import { seqOf } from "../clients/connection.ts";
import type { PublishedEvent } from "../oracle/oracle.ts";
import type { Item } from "./items.ts";

/** A channel that no reader asks for. Streams read it only after `subscribe()`. */
export const JOINED = "d";

/** Heads of the log between which a stream is a member of {@link JOINED}: of the calls, and of their answers. */
export interface Membership {
  readonly calledAt: number;
  joinedAt: number;
  leavingAt: number;
  leftAt: number;
}

/** What one connection has received, and its memberships. */
export interface StreamRecord {
  readonly channels: readonly string[];
  readonly memberships: readonly Membership[];
  /** In the order of receipt; an id is the rank of its event. */
  readonly received: readonly (readonly [Item, rank: number])[];
}

/** The data of an ephemeral event: how many there were before, the head when it was published, and its channel. */
export const ephemeralData = (count: number, head: number, channel: string): string => `${count} ${head} ${channel}`;

/** Returns the faults in what one connection has received. */
export function findStreamFaults(published: readonly PublishedEvent[], stream: StreamRecord): string[] {
  return [...findJoinFaults(published, stream), ...findEphemeralFaults(stream)];
}

/** While it is a member, a connection that goes on receives each event, or a gap for it; and no event of another time. */
function findJoinFaults(
  published: readonly PublishedEvent[],
  { channels, memberships, received }: StreamRecord,
): string[] {
  const faults: string[] = [];
  const events = new Set<number>();
  const gaps: { readonly after: number; readonly through: number }[] = [];
  let first = Infinity;
  let last = 0;
  for (const [item, rank] of received) {
    if (item.id === undefined) continue;
    first = Math.min(first, rank);
    last = Math.max(last, rank);
    if (item.type === "event") events.add(rank);
    if (item.type === "gap" && item.channels.includes(JOINED))
      gaps.push({ after: item.after === null ? 0 : seqOf(item.after), through: seqOf(item.through) });
  }
  for (const { seq, channels: names } of published) {
    if (!names.includes(JOINED) || names.some((name) => channels.includes(name))) continue;
    const isDue = memberships.some(({ joinedAt, leavingAt }) => seq > joinedAt && seq <= leavingAt);
    const isAllowed = memberships.some(({ calledAt, leftAt }) => seq > calledAt && seq <= leftAt);
    const isReported = gaps.some(({ after, through }) => seq > after && seq <= through);
    if (events.has(seq) && !isAllowed) faults.push(`event ${seq} of ${JOINED} came outside of its membership`);
    if (isDue && seq > first && seq < last && !events.has(seq) && !isReported)
      faults.push(`event ${seq} of ${JOINED} was lost without a gap while the stream was a member`);
  }
  return faults;
}

/** An ephemeral event comes once at most, to its channel only, behind what was published before it and before what was published after it. */
function findEphemeralFaults({ channels, received }: StreamRecord): string[] {
  const faults: string[] = [];
  const seen = new Set<string>();
  let last = 0;
  let least = 0;
  for (const [item, rank] of received) {
    if (item.type === "event") {
      last = Math.max(last, rank);
      if (rank <= least)
        faults.push(`event ${rank} came after an ephemeral event that was published later, at ${least}`);
    }
    if (item.type !== "ephemeral") continue;
    const [, head = "", channel = ""] = item.data.split(" ");
    if (seen.has(item.data)) faults.push(`ephemeral event ${item.data} came twice`);
    if (!channels.includes(channel)) faults.push(`ephemeral event ${item.data} is not for this reader`);
    if (last > Number(head)) faults.push(`ephemeral event ${item.data} came after event ${last}`);
    seen.add(item.data);
    least = Math.max(least, Number(head));
  }
  return faults;
}
