// Random histories of a client that mirrors a state: snapshots, events, gaps, and drops at random moments. Its state always equals the server's.
import { expect, test } from "vitest";
import type { Broker } from "../../../src/index.ts";
import type { Connection } from "../../support/clients/connection.ts";
import { Flushes } from "../../support/flushes.ts";
import { Random } from "../../support/random.ts";
import { runtime } from "../../support/runtime.ts";
import { type TestSetup, turn, withBroker } from "../../support/test-broker.ts";

const CHANNELS = ["a", "b", "c"];
/** On one runtime all of them: a turn of the event loop takes a millisecond on the others. */
const HISTORIES = runtime === "node" ? 1_000 : 200;
/** Histories in one test, so that a failure names its seed, and no test takes long. */
const PER_TEST = 50;

interface Change {
  readonly channel: string;
  readonly version: number;
}

/** The application: a version for each channel. It changes its state, and then publishes the change. */
class Application {
  readonly versions = new Map<string, number>(CHANNELS.map((channel) => [channel, 0]));
  broker!: Broker;
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
    const { id } = await this.broker.broadcast({ event: "change", data }, { channels: channel });
    return id;
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
class Mirror {
  readonly versions = new Map<string, number>();
  drops = 0;
  readonly #setup: TestSetup;
  readonly #broker: Broker;
  #stream: Connection | undefined;
  #reading: Promise<void> | undefined;
  #lastEventId: string | undefined;
  /** Whether the client's id is held back. */
  #isInSnapshot = false;

  constructor(setup: TestSetup, broker: Broker) {
    this.#setup = setup;
    this.#broker = broker;
  }

  async open(): Promise<void> {
    const lastEventId = this.#lastEventId;
    const stream = await this.#setup.connect(this.#broker, {
      id: "mirror",
      channel: CHANNELS,
      ...(lastEventId === undefined ? {} : { lastEventId }),
    });
    this.#stream = stream;
    this.#reading = this.#read(stream);
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
      if (!next) return;
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

for (let first = 1; first <= HISTORIES; first += PER_TEST) {
  test(`snapshot: the client's state equals the server's after drops at random moments (seeds ${first} to ${first + PER_TEST - 1})`, () =>
    withBroker(async (setup) => {
      const total = { new: 0, gap: 0, drops: 0 };
      for (let seed = first; seed < first + PER_TEST; seed++) {
        const random = new Random(seed);
        const application = new Application(random.fork());
        const events = random.pick([1, 1, 2, 100]);
        const broker = setup.broker({
          log: { retention: { events } },
          maxSnapshots: random.pick([1, 100]),
          snapshot: (request) => application.snapshot(request),
        });
        application.broker = broker;
        const flushes = new Flushes(broker, CHANNELS);
        const mirror = new Mirror(setup, broker);
        if (random.chance(0.5)) await application.change();
        await mirror.open();
        for (let step = 0; step < 20; step++) {
          const action = random.next();
          const change = async (): Promise<void> => {
            let last: string | undefined;
            for (let burst = random.integer(0, 8); burst > 0; burst--) last = await application.change();
            // Then the log has dropped what it does not retain.
            if (last && random.chance(0.5)) await flushes.reach(last);
          };
          if (action < 0.5) await change();
          else if (action < 0.7) await mirror.drop(change);
          else if (action < 0.8) mirror.isReading = !mirror.isReading;
          else await turn();
        }
        mirror.isReading = true;
        const isEqual = (): boolean =>
          CHANNELS.every((channel) => mirror.versions.get(channel) === application.versions.get(channel));
        for (let turns = 0; turns < 500 && !isEqual(); turns++) await turn();
        // Also where the state is one that nobody changed, which the client knows from the snapshot.
        expect([seed, Object.fromEntries(mirror.versions)]).toEqual([
          seed,
          Object.fromEntries(CHANNELS.map((channel) => [channel, application.versions.get(channel)])),
        ]);
        await broker.close();
        total.new += application.asked.new ?? 0;
        total.gap += application.asked.gap ?? 0;
        total.drops += mirror.drops;
      }
      // A run in which nothing happened shows nothing.
      expect(Math.min(total.new, total.gap, total.drops)).toBeGreaterThan(0);
    })());
}
