// Random histories of a page: cuts, silence, sleeps, tokens that expire, deploys, gaps and changes of channels, in virtual time. An oracle
// says that each event came once and in order, or lies in a gap.
import { expect, test, vi } from "vitest";
import { connect, type EventClient, type EventMap } from "../../../src/client/index.ts";
import type { Broker } from "../../../src/index.ts";
import { testHistories } from "../../support/client/histories.ts";
import { Net } from "../../support/client/net.ts";
import { Oracle } from "../../support/client/oracle.ts";
import type { Clock } from "../../support/clock.ts";
import { Random } from "../../support/random.ts";
import type { TestSetup } from "../../support/test-broker.ts";

const CHANNELS = ["a", "b", "c"];
const STEPS = 60;

/** What has happened in all histories. */
const total = { received: 0, gaps: 0, requests: 0, refused: 0, deploys: 0, changes: 0 };

/** One page, and everything around it. */
class History {
  readonly oracle = new Oracle();
  readonly #setup: TestSetup;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #net: Net;
  /** Starts an engine with the log of the one before. */
  #engine: () => ReturnType<TestSetup["engine"]>;
  readonly #retained: number;
  #broker: Broker;
  #client: EventClient<EventMap>;
  #token = 0;
  /** When each token was replaced. */
  readonly #replaced: number[] = [];
  /** The token that the page has. */
  #cached = -1;
  #events = 0;
  #hasBegun = false;
  /** Milliseconds that the page needs for an event, if it iterates. */
  #slowness = 0;
  #changes: Promise<unknown> = Promise.resolve();
  readonly log: string[] = [];

  constructor(setup: TestSetup, clock: Clock, random: Random) {
    this.#setup = setup;
    this.#clock = clock;
    this.#random = random;
    const pauses = random.fork();
    vi.spyOn(Math, "random").mockImplementation(() => pauses.next());
    this.#retained = random.pick([1, 3, 20, 1000]);
    this.#engine = setup.engines({ retention: { events: this.#retained } });
    this.#broker = this.#newBroker(true);
    this.#net = new Net((request) => this.#broker.fetch(request), random.fork());
    this.#client = this.#newClient();
  }

  #newBroker(continues: boolean): Broker {
    if (!continues) this.#engine = this.#setup.engines({ retention: { events: this.#retained } });
    return this.#setup.broker({
      engine: this.#engine(),
      retry: 500,
      heartbeat: 1_000,
      maxConnectionAge: this.#random.pick([Infinity, 20_000]),
      authorize: ({ request, channels }) => {
        const presented = Number(request.headers.get("authorization")?.slice(7));
        // A token is accepted for some time after it was replaced, so that a page that has just asked for one is let in.
        if (presented !== this.#token && !(this.#clock.time < (this.#replaced[presented] ?? -1) + 1_000)) {
          total.refused++;
          this.#cached = this.#token;
          return new Response(null, { status: 401 });
        }
        return { channels: channels.length > 0 ? channels : ["a"], subject: "page" };
      },
    });
  }

  #newClient(): EventClient<EventMap> {
    const { oracle } = this;
    const client = connect<EventMap>("http://server/connect", {
      channels: ["a", "b"],
      fetch: this.#net.fetch,
      silence: 3_300,
      // As a page that keeps its token until it is refused.
      headers: () => ({ authorization: `Bearer ${this.#cached}` }),
    });
    for (const channel of ["a", "b"]) oracle.possible.add(channel);
    if (this.#random.chance(0.5)) {
      client.on("message", ({ data }) => oracle.received.push(data));
      client.on("gap", (gap) => oracle.gaps.push(gap));
    } else {
      this.#slowness = this.#random.pick([0, 50]);
      void this.#iterate(client);
    }
    client.on("error", (error) => this.log.push(`error ${error.code} ${error.message}`));
    client.on("state", ({ state }) =>
      this.log.push(`${this.#clock.time} ${state} ${client.lastEventId} ${client.channels}`),
    );
    return client;
  }

  async #iterate(client: EventClient<EventMap>): Promise<void> {
    for await (const item of client) {
      if (item.type === "event") this.oracle.received.push(item.data);
      if (item.type === "gap") this.oracle.gaps.push(item);
      if (this.#slowness > 0) await new Promise((resolve) => setTimeout(resolve, this.#slowness));
    }
  }

  async play(): Promise<void> {
    for (let step = 0; step < STEPS; step++) {
      await this.#step(this.#random.next());
      if (this.#client.lastEventId !== "") this.#begin();
      await this.#clock.advance(this.#random.pick([0, 10, 100, 700]), 2);
    }
    this.#net.isDown = false;
    this.#slowness = 0;
    await this.#clock.advance(120_000, 2);
    await this.#clock.advanceUntil(this.#changes, 120_000);
    // The end of everything that is due, in every channel.
    for (const channel of CHANNELS) await this.#publish(channel);
    for (let wait = 0; wait < 60 && this.oracle.faults().length > 0; wait++) await this.#clock.advance(2_000, 2);
  }

  /** The stream has a position, so from now on nothing may be lost. */
  #begin(): void {
    if (this.#hasBegun) return;
    this.#hasBegun = true;
    for (const channel of this.#client.channels) if (this.oracle.possible.has(channel)) this.oracle.due.add(channel);
  }

  async close(): Promise<void> {
    total.received += this.oracle.received.length;
    total.gaps += this.oracle.gaps.length;
    total.requests += this.#net.requests;
    this.#client.close();
    await this.#clock.advanceUntil(this.#broker.close({ force: true }));
    vi.restoreAllMocks();
  }

  async #step(action: number): Promise<void> {
    const random = this.#random;
    if (action < 0.5) {
      for (let burst = random.pick([1, 1, 2, 5, 30]); burst > 0; burst--) await this.#publish(random.pick(CHANNELS));
    } else if (action < 0.6) {
      this.#net.cut();
    } else if (action < 0.65) {
      this.#net.swallow();
    } else if (action < 0.7) {
      this.#net.isDown = !this.#net.isDown;
      if (this.#net.isDown) this.#net.cut();
    } else if (action < 0.75) {
      this.#replaced[this.#token++] = this.#clock.time;
      if (random.chance(0.5)) this.#net.cut();
    } else if (action < 0.8) {
      await this.#deploy(random.chance(0.5));
    } else if (action < 0.85) {
      await this.#clock.advance(random.pick([5_000, 40_000]), 2);
    } else {
      this.#change(random.pick(CHANNELS));
    }
  }

  async #publish(channel: string): Promise<void> {
    const data = `${channel}${++this.#events}`;
    const { id } = await this.#broker.broadcast(data, { channels: channel });
    this.oracle.publish(id, channel, data);
  }

  async #deploy(continues: boolean): Promise<void> {
    total.deploys++;
    const before = this.#broker;
    this.#broker = this.#newBroker(continues);
    this.log.push(`${this.#clock.time} deploy ${continues} ${this.#client.lastEventId}`);
    await this.#clock.advanceUntil(before.close());
  }

  /** Joins or leaves a channel, after the changes before it. */
  #change(channel: string): void {
    total.changes++;
    const { oracle } = this;
    if (!this.#hasBegun) return;
    this.#changes = this.#changes.then(async () => {
      if (oracle.possible.has(channel)) {
        if (oracle.possible.size === 1) return;
        oracle.leave(channel);
        await this.#client.unsubscribe(channel);
        oracle.possible.delete(channel);
        this.log.push(`${this.#clock.time} left ${channel}`);
      } else {
        oracle.possible.add(channel);
        await this.#client.subscribe(channel);
        oracle.due.add(channel);
        this.log.push(`${this.#clock.time} joined ${channel}`);
      }
    });
  }
}

const HISTORIES = testHistories(
  "client: each event comes once and in order, or lies in a gap",
  { node: 200, bun: 20, deno: 20, workerd: 3 },
  async (setup, clock, seed) => {
    const history = new History(setup, clock, new Random(seed));
    await history.play();
    const faults = history.oracle.faults();
    if (faults.length > 0) console.info(seed, history.log.slice(-60).join("\n"), history.oracle.gaps);
    await history.close();
    return faults;
  },
);

test("client: the histories have events, gaps, reconnects, refused tokens, deploys and changes of channels", () => {
  console.info(total);
  const { received, gaps, requests, refused, deploys, changes } = total;
  // A few histories may lack something.
  const counts = HISTORIES < 10 ? [received, requests] : [received, gaps, requests, refused, deploys, changes];
  expect(Math.min(...counts)).toBeGreaterThan(HISTORIES / 4);
});
