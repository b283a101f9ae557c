import type { ReplayPage, StoredEvent } from "../../engine/engine.ts";
import { textDecoder } from "../../event/sse-format.ts";
import type { ChannelLog, Entry } from "../../log/channel-log.ts";
import type { Log } from "../../log/log.ts";
import { check, equal } from "./expectation.ts";

const decoder = textDecoder();

/** An event of the log as it was appended, and the id that it goes by. */
export function unpack({ bytes }: Pick<Entry, "bytes">): { readonly id: string | undefined; readonly text: string } {
  const whole = decoder.decode(bytes);
  const [line = "", id] = /^id: (.*)\n/.exec(whole) ?? [];
  return { id, text: whole.slice(line.length) };
}

/** Bytes of a page. */
const PAGE = 65_536;

/** A page of a log that is all in this process. */
export function pageOf(log: Log, keys: readonly string[], after: number): ReplayPage {
  const time = Date.now();
  const channels = keys.map((key) => log.find(key));
  for (const channel of channels) if (channel) log.trim(channel, time);
  const lanes = channels
    .filter((channel): channel is ChannelLog => channel !== undefined)
    .map((channel) => ({ channel, index: channel.indexAfter(after) }));
  const records: StoredEvent[] = [];
  let through = log.head;
  for (let room = PAGE; ; ) {
    let first: Entry | undefined;
    for (const { channel, index } of lanes) {
      const entry = channel.at(index);
      if (entry && !(first && first.seq <= entry.seq)) first = entry;
    }
    if (!first) break;
    room -= first.bytes.length;
    const last = records.at(-1);
    if (last && room < 0) {
      through = last.seq;
      break;
    }
    for (const lane of lanes) if (lane.channel.at(lane.index) === first) lane.index++;
    records.push({ seq: first.seq, keys: first.keys, text: unpack(first).text });
  }
  return {
    epoch: log.epoch,
    records,
    through,
    droppedThrough: channels.map((channel) => channel?.droppedThrough ?? log.forgottenThrough),
  };
}

/** An event that was appended, and where it is. */
export interface Sent {
  readonly epoch: string;
  readonly seq: number;
  readonly keys: readonly string[];
  readonly text: string;
}

/** How many of a channel's newest events have to be kept. */
export type Kept = number | ((key: string) => number);

/**
 * Checks a page against everything that was appended, `sent` in order: complete up to where it says, nothing twice, nothing of other
 * channels, and what is missing said for each channel, no more than is past the newest `kept`.
 */
export function judge(
  page: ReplayPage,
  sent: readonly Sent[],
  keys: readonly string[],
  after: number,
  kept: Kept = Infinity,
): void {
  const where = `the page of ${JSON.stringify(keys)} after ${after}`;
  const concerns = (event: Sent): boolean => event.keys.some((key) => keys.includes(key));
  const due = sent.filter((event) => event.seq > after && event.seq <= page.through && concerns(event));
  const got = new Set(page.records.map(({ seq }) => seq));
  const order = page.records.map(({ seq }) => seq);
  equal(
    `${where}: positions in order, each once`,
    order,
    [...got].sort((a, b) => a - b),
  );
  const bySeq = new Map(due.map((event) => [event.seq, event]));
  for (const { seq, keys: names, text } of page.records) {
    const event = bySeq.get(seq);
    check(event !== undefined, where, `only what was appended to these channels after it, up to ${page.through}`, {
      seq,
      text,
    });
    if (!event) continue;
    equal(`${where}: text of ${seq}`, text, event.text);
    equal(`${where}: channels of ${seq}`, [...names].sort(), [...event.keys].sort());
  }
  equal(`${where}: how many channels it answers for`, page.droppedThrough.length, keys.length);
  keys.forEach((key, index) => {
    const dropped = page.droppedThrough[index] as number;
    const mine = sent.filter((event) => event.keys.includes(key));
    const lost = mine.filter((event) => event.seq > after && event.seq <= page.through && !got.has(event.seq)).at(-1);
    const most = typeof kept === "number" ? kept : kept(key);
    const may = most === Infinity ? undefined : mine.at(-1 - most);
    check(dropped >= (lost?.seq ?? 0), where, `to be told that ${JSON.stringify(key)} lacks ${lost?.seq}`, { dropped });
    check(dropped <= (may?.seq ?? 0), where, `nothing of ${JSON.stringify(key)} after ${may?.seq ?? 0} to be dropped`, {
      dropped,
    });
  });
}
