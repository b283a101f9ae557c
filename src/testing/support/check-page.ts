// Checks a page of replayed events against everything that was appended.
import type { ReplayPage } from "../../engine/engine.ts";
import { check, equal } from "./expectation.ts";

/** An event that was appended, with its position. */
export interface AppendedEvent {
  readonly epoch: string;
  readonly seq: number;
  readonly keys: readonly string[];
  readonly text: string;
}

/** Number of newest events of a channel that must be retained. */
export type RetainedCount = number | ((key: string) => number);

/**
 * Checks a page. `appended` are all events that were appended, in order.
 *
 * The page must be complete up to its `through`. It must contain each event once, and no event of other channels. `droppedThrough` must cover
 * each missing event, channel by channel, and must not cover any of the newest `retained` events.
 */
export function checkPage(
  page: ReplayPage,
  appended: readonly AppendedEvent[],
  keys: readonly string[],
  after: number,
  retained: RetainedCount = Infinity,
): void {
  const subject = `the page of ${JSON.stringify(keys)} after ${after}`;
  const seqs = page.records.map(({ seq }) => seq);
  const inPage = new Set(seqs);
  equal(
    `${subject}: positions in order, each once`,
    seqs,
    [...inPage].sort((a, b) => a - b),
  );
  const isInRange = ({ seq }: AppendedEvent): boolean => seq > after && seq <= page.through;
  const due = new Map(
    appended
      .filter((event) => isInRange(event) && event.keys.some((key) => keys.includes(key)))
      .map((event) => [event.seq, event]),
  );
  for (const { seq, keys: eventKeys, text } of page.records) {
    const event = due.get(seq);
    const expected = `only events that were appended to these channels after it, up to ${page.through}`;
    check(event !== undefined, subject, expected, { seq, text });
    if (!event) continue;
    equal(`${subject}: text of ${seq}`, text, event.text);
    equal(`${subject}: channels of ${seq}`, [...eventKeys].sort(), [...event.keys].sort());
  }
  equal(`${subject}: length of droppedThrough`, page.droppedThrough.length, keys.length);
  for (const [index, key] of keys.entries()) {
    const dropped = page.droppedThrough[index] as number;
    const ofChannel = appended.filter((event) => event.keys.includes(key));
    const lastMissing = ofChannel.filter((event) => isInRange(event) && !inPage.has(event.seq)).at(-1)?.seq ?? 0;
    const count = typeof retained === "number" ? retained : retained(key);
    const lastDroppable = count === Infinity ? 0 : (ofChannel.at(-1 - count)?.seq ?? 0);
    const channel = JSON.stringify(key);
    check(dropped >= lastMissing, subject, `droppedThrough of ${channel} to be ${lastMissing} or more`, dropped);
    check(dropped <= lastDroppable, subject, `droppedThrough of ${channel} to be ${lastDroppable} or less`, dropped);
  }
}
