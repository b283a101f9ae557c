// Random histories of tabs that share one stream: leaders crash, close and lose their connection; tabs come late and are loaded again. Each tab
// has each event once and in order, or in a gap.
import { expect, test, vi } from "vitest";
import type { EventClient, EventMap } from "../../../src/client/index.ts";
import { connect } from "../../../src/client/share.ts";
import type { Broker } from "../../../src/index.ts";
import { testHistories } from "../../support/client/histories.ts";
import { Net } from "../../support/client/net.ts";
import { Oracle } from "../../support/client/oracle.ts";
import { Browser, FakeChannel, type Tab } from "../../support/client/tabs.ts";
import type { Clock } from "../../support/clock.ts";
import { Random } from "../../support/random.ts";
import type { TestSetup } from "../../support/test-broker.ts";

const STEPS = 50;

const total = { received: 0, crashes: 0, closes: 0, reloads: 0, gaps: 0, moments: 0, single: 0 };

/** One tab, what it has received, and its network. */
interface OpenTab extends Tab {
  readonly client: EventClient<EventMap>;
  readonly oracle: Oracle;
  readonly net: Net;
  readonly stored: Map<string, string>;
}

class History {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #browser: Browser;
  readonly #broker: Broker;
  #tabs: OpenTab[] = [];
  readonly #past: OpenTab[] = [];
  /** Everything that was published. */
  readonly #all: { readonly id: string; readonly data: string }[] = [];

  constructor(setup: TestSetup, clock: Clock, random: Random) {
    this.#clock = clock;
    this.#random = random;
    const pauses = random.fork();
    vi.spyOn(Math, "random").mockImplementation(() => pauses.next());
    this.#browser = FakeChannel.browser = new Browser(random.fork());
    this.#broker = setup.broker({
      log: { retention: { events: random.pick([5, 1000]) } },
      retry: 200,
      heartbeat: 1_000,
    });
    vi.stubGlobal("BroadcastChannel", FakeChannel);
    vi.stubGlobal("navigator", { locks: this.#browser.locks, userAgent: "" });
  }

  async play(): Promise<void> {
    for (let count = 0; count < 4; count++) await this.#open();
    for (let step = 0; step < STEPS; step++) {
      await this.#step(this.#random.next());
      await this.#advance(this.#random.pick([0, 5, 100, 1_000]));
    }
    await this.#advance(70_000);
    await this.#publish();
    await this.#advance(3_000);
  }

  faults(): string[] {
    const faults = this.#tabs.flatMap(({ oracle }, index) => oracle.faults().map((fault) => `tab ${index}: ${fault}`));
    return [...faults, ...this.#past.flatMap(({ oracle }) => oracle.faults({ isAtRest: false }))];
  }

  get log(): unknown {
    return this.#tabs.map(({ client, oracle }) => [client.state, client.lastEventId, oracle.received.length]);
  }

  async close(): Promise<void> {
    for (const { client, oracle } of this.#tabs) {
      total.received += oracle.received.length;
      total.gaps += oracle.gaps.length;
      client.close();
    }
    await this.#clock.advanceUntil(this.#broker.close({ force: true }));
    vi.unstubAllGlobals();
    vi.restoreAllMocks();
  }

  async #advance(ms: number): Promise<void> {
    await this.#clock.advance(ms, 2);
    for (const { client, oracle } of this.#tabs) if (client.lastEventId !== "") oracle.due.add("news");
    const streams = this.#tabs.reduce((sum, { net }) => sum + net.open.size, 0);
    total.moments++;
    if (streams <= 1) total.single++;
  }

  /** Opens a tab, or loads one again, whose page goes on where it was. */
  async #open(previous?: OpenTab): Promise<void> {
    const stored = previous?.stored ?? new Map<string, string>();
    const oracle = previous?.oracle ?? new Oracle();
    // A tab may receive what was published shortly before it came, and must receive what it has missed.
    for (const { id, data } of this.#all.slice(oracle.published.length)) oracle.publish(id, "news", data);
    const net = new Net((request) => this.#broker.fetch(request), this.#random.fork());
    const tab: Partial<OpenTab> & Tab = { isDead: false, oracle, net, stored };
    const before = this.#browser.current;
    this.#browser.current = tab;
    const client = connect<EventMap>("http://server/connect", {
      channels: "news",
      fetch: net.fetch,
      silence: 3_300,
      storage: {
        getItem: (key) => stored.get(key) ?? null,
        setItem: (key, id) => void (tab.isDead || stored.set(key, id)),
      },
    });
    client.on("message", ({ data }) => void (tab.isDead || oracle.received.push(data)));
    client.on("gap", (gap) => void (tab.isDead || oracle.gaps.push(gap)));
    // The client starts in a microtask.
    await undefined;
    this.#browser.current = before;
    this.#tabs.push(Object.assign(tab, { client }) as OpenTab);
  }

  async #step(action: number): Promise<void> {
    const random = this.#random;
    const leader = this.#tabs.find((tab) => tab === this.#browser.leader);
    if (action < 0.55) {
      for (let burst = random.pick([1, 1, 2, 5, 30]); burst > 0; burst--) await this.#publish();
    } else if (action < 0.65 && leader && this.#tabs.length > 1) {
      total.crashes++;
      this.#browser.crash(leader);
      this.#end(leader);
      leader.net.isDown = true;
      leader.net.cut();
    } else if (action < 0.7 && leader && this.#tabs.length > 1) {
      total.closes++;
      this.#end(leader);
      leader.client.close();
    } else if (action < 0.8) {
      await this.#open();
    } else if (action < 0.87) {
      const tab = random.pick(this.#tabs);
      total.reloads++;
      this.#tabs.splice(this.#tabs.indexOf(tab), 1);
      tab.client.close();
      await this.#publish();
      await this.#open(tab);
    } else if (action < 0.94) {
      for (const { net } of this.#tabs) net.cut();
    } else {
      for (const { net } of this.#tabs) net.swallow();
    }
    if (this.#tabs.length > 6) this.#drop();
  }

  #drop(): void {
    const tab = this.#tabs[0] as OpenTab;
    this.#end(tab);
    tab.client.close();
  }

  #end(tab: OpenTab): void {
    this.#tabs = this.#tabs.filter((each) => each !== tab);
    this.#past.push(tab);
  }

  async #publish(): Promise<void> {
    const data = `${this.#all.length + 1}`;
    const { id } = await this.#broker.broadcast(data, { channels: "news" });
    this.#all.push({ id, data });
    for (const { oracle } of this.#tabs) oracle.publish(id, "news", data);
  }
}

const HISTORIES = testHistories(
  "share: each tab has each event once and in order, or in a gap",
  { node: 100, bun: 20, deno: 20, workerd: 3 },
  async (setup, clock, seed) => {
    const history = new History(setup, clock, new Random(seed));
    await history.play();
    const faults = history.faults();
    if (faults.length > 0) console.info(seed, history.log);
    await history.close();
    return faults;
  },
);

test("share: the histories have crashes, closed leaders, tabs that are loaded again, and mostly one stream", () => {
  console.info(total);
  const { received, crashes, closes, reloads, moments, single } = total;
  // A few histories may lack something.
  const counts = HISTORIES < 10 ? [received, crashes + closes + reloads] : [received, crashes, closes, reloads];
  expect(Math.min(...counts)).toBeGreaterThan(HISTORIES / 4);
  expect(single / moments).toBeGreaterThan(0.8);
});
