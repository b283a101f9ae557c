// Reads what Redis retains. One script looks at a bounded number of channels and events, so that Redis can run other commands in between.
import type { ReplayPage, StoredEvent } from "../engine/engine.ts";
import type { ChannelBounds, MaxReplay } from "../log/resume.ts";
import type { SharedHistoryBounds } from "../shared-log/shared-log.ts";
import type { ChannelRetention } from "./channel-retention.ts";
import type { Commands } from "./commands.ts";
import { parseSeq, parseStoredEvent } from "./messages.ts";
import { ReplayFloor } from "./replay-floor.ts";
import { KEYS_PER_AGE, KEYS_PER_SCRIPT } from "./scripts/history-scripts.ts";

/** Channels that one script looks at, and their ages as it takes them. */
interface ChannelGroup {
  readonly keys: readonly string[];
  readonly ages: string;
}

const optionalSeq = (seq: string | undefined): number | undefined => (seq === "-" ? undefined : parseSeq(seq));

/** Joins the pages of groups of channels. A page is only complete as far as all of them are. */
function joinPages(pages: readonly ReplayPage[], bytes: number): ReplayPage {
  const [first] = pages as [ReplayPage];
  if (pages.length === 1) return first;
  let through = Math.min(...pages.map((page) => page.through));
  const bySeq = new Map(pages.flatMap(({ records }) => records.map((record) => [record.seq, record] as const)));
  const records: StoredEvent[] = [];
  let room = bytes;
  for (const record of [...bySeq.values()].sort((a, b) => a.seq - b.seq)) {
    const last = records.at(-1);
    if (record.seq > through) break;
    room -= record.text.length;
    if (last && room < 0) {
      through = last.seq;
      break;
    }
    records.push(record);
  }
  return { epoch: first.epoch, records, through, droppedThrough: pages.flatMap((page) => page.droppedThrough) };
}

/** The events that Redis retains. */
export class History {
  readonly #commands: Commands;
  readonly #retention: ChannelRetention;

  constructor(commands: Commands, retention: ChannelRetention) {
    this.#commands = commands;
    this.#retention = retention;
  }

  /** Splits keys into groups, each for one script. Without keys there is one empty group. */
  #groupsOf(keys: readonly string[]): ChannelGroup[] {
    const ages = keys.map((key) => this.#retention.ageOf(key));
    const groups: ChannelGroup[] = [];
    let from = 0;
    const endGroup = (through: number): void => {
      const agesOfGroup = ages.slice(from, through);
      const isOne = agesOfGroup.every((age) => age === agesOfGroup[0]);
      groups.push({ keys: keys.slice(from, through), ages: isOne ? (agesOfGroup[0] ?? "") : agesOfGroup.join(" ") });
      from = through;
    };
    const distinct = new Set<string>();
    for (const [index, age] of ages.entries()) {
      distinct.add(age);
      if (index - from + 1 + (distinct.size - 1) * KEYS_PER_AGE <= KEYS_PER_SCRIPT) continue;
      endGroup(index);
      distinct.clear();
      distinct.add(age);
    }
    endGroup(keys.length);
    return groups;
  }

  /** As `SharedLogSession.read`. */
  async read(epoch: string, keys: readonly string[], after: number, bytes: number): Promise<ReplayPage> {
    const room = Math.ceil(Math.min(bytes, Number.MAX_SAFE_INTEGER));
    const pages: ReplayPage[] = [];
    let limit = Number.MAX_SAFE_INTEGER;
    for (const group of this.#groupsOf(keys)) {
      const args = [epoch, String(after), String(limit), String(room), group.ages, ...group.keys];
      const [current = "", through, dropped = "", ...events] = (await this.#commands.run("read", args)) as string[];
      if (through === undefined) return { epoch: current, records: [], through: 0, droppedThrough: keys.map(() => 0) };
      const records: StoredEvent[] = [];
      for (let index = 0; index + 1 < events.length; index += 2)
        records.push({ seq: parseSeq(events[index]), ...parseStoredEvent(events[index + 1] as string) });
      limit = parseSeq(through);
      const droppedThrough = dropped === "" ? [] : dropped.split(" ").map(parseSeq);
      pages.push({ epoch: current, records, through: limit, droppedThrough });
    }
    return joinPages(pages, room);
  }

  /** As `SharedLogSession.historyBounds`. */
  async bounds(
    epoch: string,
    keys: readonly string[],
    after: number,
    max: MaxReplay,
    last?: number,
  ): Promise<SharedHistoryBounds> {
    const channels: Omit<ChannelBounds, "key">[] = [];
    const groups = this.#groupsOf(keys);
    let head = Infinity;
    for (const group of groups) {
      // All groups count from the same head, or one would leave out events that another one has.
      const limit = String(Math.min(head, Number.MAX_SAFE_INTEGER));
      const args = [epoch, String(after), group.ages, String(last ?? 0), limit, ...group.keys];
      const [current = "", end, ...lines] = (await this.#commands.run("historyBounds", args)) as string[];
      head = Math.min(head, parseSeq(end));
      if (current !== epoch) return { epoch: current, head: parseSeq(end), floor: 0, channels };
      for (const line of lines) {
        const [dropped, oldest, next, lastFloor] = line.split(" ");
        channels.push({
          droppedThrough: parseSeq(dropped),
          oldest: optionalSeq(oldest),
          next: optionalSeq(next),
          lastFloor: last === undefined ? undefined : parseSeq(lastFloor),
        });
      }
    }
    // Nothing up to these positions is replayed in any case.
    const starts = channels.map(({ oldest = Infinity, lastFloor = 0 }) =>
      Math.min(head, Math.max(after, oldest - 1, lastFloor)),
    );
    const keysOfGroups = groups.map((group) => group.keys);
    const floor = await new ReplayFloor(this.#commands, epoch, keysOfGroups, starts, max).find(head);
    return floor === undefined ? this.bounds(epoch, keys, after, max, last) : { epoch, head, floor, channels };
  }
}
