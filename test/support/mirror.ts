// An application with a state, and a client that mirrors it: from snapshots, and from events that change it.
import { expect } from "vitest";
import type { Broker } from "../../src/index.ts";
import type { Connection } from "./clients/connection.ts";
import type { Random } from "./random.ts";
import { turn } from "./test-broker.ts";

export const CHANNELS = ["a", "b", "c"];

interface Change {
  readonly channel: string;
  readonly version: number;
}

/** The application: a version for each channel. It changes its state, and then publishes the change. */
export class Application {
  readonly versions = new Map<string, number>(CHANNELS.map((channel) => [channel, 0]));
  /** Publishes the changes. */
  broker!: Pick<Broker, "broadcast">;
  /** Snapshots that were asked for, by reason. */
  readonly asked: Record<string, number> = { new: 0, gap: 0 };
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  /** Changes one channel. Returns the id of the event. */
  async change(): Promise<string> {
    const channel = this.#random.pick(CHANNELS);
    const version = (this.versions.get(channel) ?? 0) + 1;
    this.versions.set(channel, version);
    const data: Change = { channel, version };
    for (;;) {
      try {
        const { id } = await this.broker.broadcast({ event: "change", data }, { channels: channel });
        return id;
      } catch (error) {
        // It may be published or not, because an object was lost. Twice does no harm.
        if ((error as { code?: string }).code !== "publish-outcome-unknown") throw error;
      }
    }
  }

  async *snapshot({ channels, reason }: { channels: readonly string[]; reason: string }) {
    this.asked[reason] = (this.asked[reason] ?? 0) + 1;
    for (const channel of channels) {
      for (let turns = this.#random.integer(0, 2); turns > 0; turns--) await turn();
      yield { event: "state", data: { channel, version: this.versions.get(channel) ?? 0 } satisfies Change };
    }
  }
}

/** A client that keeps what it receives, and comes back with its last id, as an EventSource does. */
export class Mirror {
  readonly versions = new Map<string, number>();
  drops = 0;
  /** Whether the server has ended the stream. */
  hasEnded = false;
  readonly #connect: (lastEventId: string | undefined) => Promise<Connection>;
  #stream: Connection | undefined;
  #reading: Promise<void> | undefined;
  #lastEventId: string | undefined;
  /** Whether the client's id is held back. */
  #isInSnapshot = false;

  /** `connect` connects a client that reads nothing by itself. */
  constructor(connect: (lastEventId: string | undefined) => Promise<Connection>) {
    this.#connect = connect;
  }

  async open(): Promise<void> {
    const stream = await this.#connect(this.#lastEventId);
    this.#stream = stream;
    this.hasEnded = false;
    this.#reading = this.#read(stream);
  }

  /** Whether it has the state of an application. */
  equals({ versions }: Application): boolean {
    return CHANNELS.every((channel) => this.versions.get(channel) === versions.get(channel));
  }

  /** Drops, and comes back when `away` is done. */
  async drop(away: () => Promise<void>): Promise<void> {
    this.drops++;
    const stream = this.#stream;
    this.#stream = undefined;
    await stream?.leave();
    await this.#reading;
    await away();
    await this.open();
  }

  /** Whether the client reads. Otherwise the events of the log pass it by. */
  isReading = true;

  async #read(stream: Connection): Promise<void> {
    for (;;) {
      while (!this.isReading && this.#stream === stream) await turn();
      // The stream ends when the client drops.
      const next = await stream.next().catch(() => undefined);
      if (!next) {
        this.hasEnded = this.#stream === stream;
        return;
      }
      const { event, id, data } = next;
      if (event === "fanwire-ready") this.#isInSnapshot = id === undefined;
      if (event === "fanwire-gap" && id === undefined) this.#isInSnapshot = true;
      if (event === "fanwire-snapshot") this.#isInSnapshot = false;
      if (event === "state") expect([this.#isInSnapshot, id]).toEqual([true, undefined]);
      if (event === "change") expect(id).toBeDefined();
      if (event === "state" || event === "change") {
        const { channel, version } = JSON.parse(data) as Change;
        this.versions.set(channel, version);
      }
      if (id !== undefined) this.#lastEventId = id;
    }
  }
}
