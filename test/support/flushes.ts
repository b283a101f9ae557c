// Shows when published events were offered to all live subscribers. Until then the log drops none of them.
import type { Broker, Listened } from "../../src/index.ts";

/** A listener that is no client, so no figure counts it. */
export class Flushes {
  readonly #listener: AsyncIterableIterator<Listened, undefined>;

  /** Without channels it shows events for every client. */
  constructor(broker: Broker, channels?: string | readonly string[]) {
    this.#listener = broker.listen(channels === undefined ? {} : { channels });
  }

  /** Resolves when the event with this id was flushed. It must be in one of the channels, and newer than that of an earlier call. */
  async reach(id: string): Promise<void> {
    for (;;) {
      const { value } = await this.#listener.next();
      if (value === undefined || value.id === id) return;
    }
  }
}
