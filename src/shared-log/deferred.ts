// Holds messages of the feed while the session catches up.
import type { Checkpoint, FeedEvent } from "./shared-log.ts";

/** The memory that an item takes, apart from its text. */
const ITEM_COST = 256;

export class Deferred {
  /** Bytes of all items. */
  bytes = 0;
  #items: (FeedEvent | Checkpoint)[] = [];

  add(item: FeedEvent | Checkpoint): void {
    this.#items.push(item);
    this.bytes += ITEM_COST + ("text" in item ? item.text.length : 0);
  }

  /** Returns the items in the order of their arrival, and forgets them. */
  take(): readonly (FeedEvent | Checkpoint)[] {
    const items = this.#items;
    this.#items = [];
    this.bytes = 0;
    return items;
  }
}
