// What a page has to receive: each event of its channels once, in order, or inside a gap.
import type { GapEvent } from "../../../src/client/index.ts";

interface Published {
  readonly id: string;
  readonly channel: string;
  readonly data: string;
  /** Whether the page has to receive it. */
  isDue: boolean;
}

const split = (id: string): readonly [epoch: string, seq: number] => {
  const dash = id.lastIndexOf("-");
  return [id.slice(0, dash), Number(id.slice(dash + 1))];
};

export class Oracle {
  readonly published: Published[] = [];
  readonly received: string[] = [];
  readonly gaps: GapEvent[] = [];
  /** Channels whose events the page has to receive. */
  readonly due: Set<string> = new Set();
  /** Channels whose events it may receive. */
  readonly possible: Set<string> = new Set();
  readonly #epochs: string[] = [];

  publish(id: string, channel: string, data: string): void {
    const [epoch] = split(id);
    if (!this.#epochs.includes(epoch)) this.#epochs.push(epoch);
    this.published.push({ id, channel, data, isDue: this.due.has(channel) });
  }

  /** The page leaves a channel. What it has not received of it need not come any more. */
  leave(channel: string): void {
    this.due.delete(channel);
    for (const event of this.published) if (event.channel === channel) event.isDue = false;
  }

  /** Returns what is wrong now. */
  faults({ isAtRest = true } = {}): string[] {
    const faults: string[] = [];
    const order = new Map(this.published.map(({ data }, index) => [data, index]));
    let last = -1;
    const seen = new Set<string>();
    for (const data of this.received) {
      const index = order.get(data);
      if (index === undefined) faults.push(`${data} was never published`);
      else if (seen.has(data)) faults.push(`${data} came twice`);
      else if (index < last) faults.push(`${data} came late`);
      seen.add(data);
      last = Math.max(last, index ?? -1);
    }
    if (!isAtRest) return faults;
    for (const event of this.published)
      if (event.isDue && !seen.has(event.data) && !this.#isInGap(event))
        faults.push(`${event.data} (${event.id}, ${event.channel}) is lost`);
    return faults;
  }

  #isInGap({ id, channel }: Published): boolean {
    const [epoch, seq] = split(id);
    return this.gaps.some(({ channels, after, through }) => {
      const [gapEpoch, last] = split(through);
      if (!channels.includes(channel)) return false;
      if (gapEpoch === epoch)
        return seq <= last && (after === null || split(after)[0] !== epoch || seq > split(after)[1]);
      return after === null && this.#epochs.indexOf(epoch) < this.#epochs.indexOf(gapEpoch);
    });
  }
}
