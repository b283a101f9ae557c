// The owners of a log's channels, and what each of them takes. Whoever takes the most is found at once, and is the one that loses.
import { quote } from "../base/errors.ts";

/** Bytes that the objects around an event cost in each of its channels, as measured on V8 and JavaScriptCore. */
export const ENTRY_COST = 256;

/** The size of a channel that keeps events. */
interface Sized {
  /** Number of events that the channel retains. */
  readonly size: number;
  /** Bytes of these events. */
  readonly bytes: number;
}

/** Returns the binary logarithm of a channel's bytes, rounded down; `-Infinity` for a channel without events. */
export const sizeClass = ({ size, bytes }: Sized): number => Math.floor(Math.log2(size * ENTRY_COST + bytes));

/** The use that an owner makes of one bound of the log. */
interface Share<Channel> {
  readonly owner: Owner<Channel>;
  /** Bytes or records. */
  amount: number;
  /** Its place in the heap of {@link Shares}. */
  place: number;
}

/** The shares of one bound, as a heap: no share is larger than its parent, which is at half its place. */
class Shares<Channel> {
  readonly #heap: Share<Channel>[] = [];

  /** The owner that takes the most. */
  get largest(): Owner<Channel> | undefined {
    return this.#heap[0]?.owner;
  }

  add(share: Share<Channel>): void {
    share.place = this.#heap.push(share) - 1;
  }

  /** Adds to a share. `by` may be negative. */
  change(share: Share<Channel>, by: number): void {
    const heap = this.#heap;
    share.amount += by;
    if (heap.length === 1) return;
    while (share.place > 0) {
      const parent = heap[(share.place - 1) >> 1] as Share<Channel>;
      if (parent.amount >= share.amount) break;
      this.#swap(share, parent);
    }
    for (let left = 2 * share.place + 1; left < heap.length; left = 2 * share.place + 1) {
      let child = heap[left] as Share<Channel>;
      const right = left + 1 < heap.length ? (heap[left + 1] as Share<Channel>) : child;
      if (right.amount > child.amount) child = right;
      if (child.amount <= share.amount) break;
      this.#swap(share, child);
    }
  }

  remove(share: Share<Channel>): void {
    const last = this.#heap.at(-1) as Share<Channel>;
    this.#swap(share, last);
    this.#heap.pop();
    if (last !== share) this.change(last, 0);
  }

  #swap(a: Share<Channel>, b: Share<Channel>): void {
    const { place } = a;
    this.#heap[b.place] = a;
    this.#heap[place] = b;
    a.place = b.place;
    b.place = place;
  }
}

/** The owner of some channels: a tenant, or a publisher. It is known as long as one of them has a record. */
export class Owner<Channel> {
  readonly name: string;
  /** Records of its channels. */
  records = 0;
  /** Bytes of the events that its channels retain, each event counted once, and the cost of each reference to one. */
  readonly bytes: Share<Channel> = { owner: this, amount: 0, place: 0 };
  /** Number of its records without a pin. */
  readonly unpinnedRecords: Share<Channel> = { owner: this, amount: 0, place: 0 };
  /** Its records without a pin, in the order in which they lost the last one. */
  readonly unpinned: Set<Channel> = new Set();
  /** Its channels that retain events, by size class. */
  readonly bySize: Set<Channel>[] = [];

  constructor(name: string) {
    this.name = name;
  }

  /** Returns a channel of the highest size class. */
  get largest(): Channel | undefined {
    for (let index = this.bySize.length - 1; index >= 0; index--) {
      for (const channel of this.bySize[index] ?? []) return channel;
    }
    return undefined;
  }

  /** Moves a channel whose size class was `before` to its present one. */
  reclassify(channel: Channel & Sized, before: number): void {
    const after = sizeClass(channel);
    if (before === after) return;
    this.bySize[before]?.delete(channel);
    if (after >= 0) (this.bySize[after] ??= new Set()).add(channel);
  }
}

/** Returns the name of a channel's owner. See `LogOptions.tenant`. */
export type Tenant = (channel: string) => string;

/**
 * Returns the name of the owner that a channel has if this subject publishes into it first. `key` is the channel's key.
 *
 * @throws what `tenant` throws, and `TypeError` if it does not return a string
 */
export function ownerNameOf(tenant: Tenant | undefined, key: string, subject = ""): string {
  if (!tenant || key[0] !== "#") return `@${subject}`;
  const channel = key.slice(1);
  const name: unknown = tenant(channel);
  if (typeof name === "string") return `#${name}`;
  throw new TypeError(`Event refused: tenant(${quote(channel)}) must return a string, not ${String(name)}.`);
}

/** The owners of the channels that have a record. */
export class Owners<Channel extends { owner: Owner<Channel> | undefined; readonly size: number }> {
  readonly bytes: Shares<Channel> = new Shares();
  readonly unpinnedRecords: Shares<Channel> = new Shares();
  readonly #byName = new Map<string, Owner<Channel>>();
  readonly #tenant: Tenant | undefined;

  constructor(tenant: Tenant | undefined) {
    this.#tenant = tenant;
  }

  /** As {@link ownerNameOf}. */
  nameOf(key: string, subject?: string): string {
    return ownerNameOf(this.#tenant, key, subject);
  }

  /** As `nameOf`, for what was published before: it never throws. */
  settledNameOf(key: string, subject?: string): string {
    try {
      return this.nameOf(key, subject);
    } catch {
      return "@";
    }
  }

  /** Returns the group of channels that share what is known of forgotten ones: those of a tenant, or of one kind. */
  groupOf(key: string): string {
    return this.#tenant && key[0] === "#" ? this.settledNameOf(key) : key.charAt(0);
  }

  /** Gives a channel to an owner, unless it retains events of another one. Its record has no owner or a pin. */
  assign(channel: Channel, name: string): Owner<Channel> {
    const { owner: before } = channel;
    if (before && (before.name === name || channel.size > 0)) return before;
    this.release(channel);
    let owner = this.#byName.get(name);
    if (!owner) {
      owner = new Owner(name);
      this.#byName.set(name, owner);
      this.bytes.add(owner.bytes);
      this.unpinnedRecords.add(owner.unpinnedRecords);
    }
    owner.records++;
    channel.owner = owner;
    return owner;
  }

  /** Takes a channel without events from its owner. */
  release(channel: Channel): void {
    const { owner } = channel;
    channel.owner = undefined;
    if (!owner || --owner.records > 0) return;
    this.#byName.delete(owner.name);
    this.bytes.remove(owner.bytes);
    this.unpinnedRecords.remove(owner.unpinnedRecords);
  }
}
