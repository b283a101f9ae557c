// A notice in the log that a process did not receive some events, and had sent later ones to its clients before it found that. A position does not
// name the process that sent it. So every reader that came with a position from after the lost events counts as one that may lack them.
import type { ReplayPage } from "../engine/engine.ts";
import { formatControl } from "../event/sse-format.ts";
import type { ChannelLog, LossNotice } from "../log/channel-log.ts";

/** Events of one channel that a process did not receive. */
export interface LostRange {
  readonly key: string;
  /** The range begins after this position. */
  readonly after: number;
  /** The range ends at this position. */
  readonly through: number;
}

const BEGINNING = "event: fanwire-lost\ndata: ";

/** Formats a notice as the text of an event. No publisher can send one, because the prefix of its type is reserved. */
export const formatLostNotice = (epoch: string, ranges: readonly LostRange[]): string =>
  formatControl("lost", { epoch, ranges });

/** Parses the text of an event of the log of `epoch`. Returns `undefined` if it is not a notice. One that cannot be read concerns nobody. */
export function parseLostNotice(text: string, epoch: string): LossNotice | undefined {
  if (!text.startsWith(BEGINNING)) return undefined;
  try {
    const notice = JSON.parse(text.slice(BEGINNING.length)) as { epoch: string; ranges: LostRange[] };
    return new LostRanges(notice.epoch === epoch ? notice.ranges.filter(({ after, through }) => after < through) : []);
  } catch {
    return new LostRanges([]);
  }
}

/** Returns a page of the store with its notices parsed. */
export const withNotices = (page: ReplayPage): ReplayPage => ({
  ...page,
  records: page.records.map((record) => ({ ...record, notice: parseLostNotice(record.text, page.epoch) })),
});

class LostRanges implements LossNotice {
  readonly #ranges: readonly LostRange[];

  constructor(ranges: readonly LostRange[]) {
    this.#ranges = ranges;
  }

  /** All ranges share one gap, because the id of one would hide the others. */
  lostFor(channels: readonly ChannelLog[], resumedAfter: number | undefined): ReturnType<LossNotice["lostFor"]> {
    if (resumedAfter === undefined) return undefined;
    const isRead = new Set(channels.map(({ key }) => key));
    const lost = this.#ranges.filter(({ key, after }) => after < resumedAfter && isRead.has(key));
    if (lost.length === 0) return undefined;
    return {
      channels: [...new Set(lost.map(({ key }) => key))],
      after: Math.min(...lost.map(({ after }) => after)),
      through: Math.min(resumedAfter, Math.max(...lost.map(({ through }) => through))),
    };
  }
}
