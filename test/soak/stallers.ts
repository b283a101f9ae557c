import { SocketClient } from "../support/clients/socket-client.ts";
import type { Stage } from "../support/servers/server.ts";
import { FLOODED } from "./names.ts";
import type { Tally } from "./tally.ts";

/** Bytes of an event. Some hundred fill what is between the broker and a client that does not read. */
const BYTES = 30_000;
/** Events at a time until everybody is blocked; then at once, more than the log holds; then while they wait to be disconnected. */
const FILL = 50;
const OVERRUN = 100;
const DRIP = 10;
/** Fills after which everybody is blocked: more than all queues of two kernels hold. */
const MOST = 30;
/** Clients that stall together; half of them read on. */
const COUNT = 4;
/** Milliseconds that any of it may take on the busiest machine. */
const PATIENCE = 60_000;
/** Milliseconds between two looks. */
const LOOK = 250;

/** Has clients stop to read until they are blocked and the log has dropped what they missed; some read on, the others are disconnected. */
export async function stall(stage: Stage, tally: Tally): Promise<void> {
  const flood = (count: number): Promise<unknown> => stage.tell("flood", { channel: FLOODED, bytes: BYTES, count });
  const before = timeoutsOf(await stage.state());
  const stallers = Array.from({ length: COUNT }, (_, n) => new Staller(stage, tally, `staller-${n}`));
  try {
    for (const staller of stallers) await staller.stall();
    for (let fills = 0, seen = 0; seen < 2; fills++) {
      await flood(FILL);
      const state = await stage.state();
      // Twice, because a guest may be blocked for a moment, and it is not told who is.
      if (state.stats.blocked + timeoutsOf(state) - before >= COUNT) seen++;
      if (fills > MOST) return tally.fault(`stalling: of ${COUNT} clients ${state.stats.blocked} are blocked`);
    }
    await flood(OVERRUN);
    await Promise.all(stallers.slice(COUNT / 2).map((staller) => staller.readOn()));
    const stuck = stallers.slice(0, COUNT / 2);
    for (const until = performance.now() + PATIENCE; !(await all(stuck.map((staller) => staller.isGone()))); ) {
      if (performance.now() > until) return tally.fault("stalling: who does not read is not disconnected");
      await flood(DRIP);
      await new Promise((resolve) => setTimeout(resolve, LOOK));
    }
    // Bun has a rule of its own, and on a busy machine it may be the first.
    tally.stalledOut += timeoutsOf(await stage.state()) - before;
  } finally {
    for (const staller of stallers) staller.leave();
  }
}

const timeoutsOf = ({ stats }: Awaited<ReturnType<Stage["state"]>>): number => stats.disconnects.timeout ?? 0;

const all = async (conditions: Promise<boolean>[]): Promise<boolean> =>
  !(await Promise.all(conditions)).includes(false);

/** A client that stops to read. */
class Staller {
  readonly #stage: Stage;
  readonly #id: string;
  readonly #client: SocketClient;
  readonly #tally: Tally;
  #expected = 0;
  #isTold = false;
  #hasAll = false;

  constructor(stage: Stage, tally: Tally, id: string) {
    this.#stage = stage;
    this.#id = id;
    this.#tally = tally;
    this.#client = new SocketClient(stage.server.url + stage.path(`connect?id=${id}&channel=${FLOODED}`));
    tally.connects++;
  }

  async stall(): Promise<void> {
    await this.#client.ready();
    this.#tally.answered++;
    this.#client.stall();
  }

  /** Until it is told that it missed something, has everything, or was disconnected before. */
  async readOn(): Promise<void> {
    const client = this.#client;
    client.socket.on("data", () => this.#take());
    client.resume();
    const late = setTimeout(() => {
      const { received, lastEventId } = client;
      this.#tally.fault(
        `stalling: who reads on is not given the rest: ${received} bytes came, the last is ${lastEventId}, next is ${this.#expected}`,
      );
      client.leave();
    }, PATIENCE);
    // That it was disconnected shows in what it does not see.
    await client.until(() => this.#isTold || this.#hasAll).catch(() => undefined);
    clearTimeout(late);
    if (this.#isTold) this.#tally.overruns++;
  }

  /** Whether the broker knows it no more. */
  async isGone(): Promise<boolean> {
    const answer = await this.#stage.publish("are you there?", `?id=${this.#id}`);
    return answer.status === 404 || ((await answer.json()) as { clients: number }).clients === 0;
  }

  leave(): void {
    this.#client.reset();
    this.#tally.resets++;
  }

  #take(): void {
    for (const { event, data } of this.#client.events.splice(0)) {
      if (event === "fanwire-gap") this.#isTold = true;
      const number = Number.parseInt(data, 10);
      // What is published to everybody comes between.
      if (event !== undefined || Number.isNaN(number) || this.#isTold || this.#hasAll) continue;
      const isNext = number === this.#expected || (number === 0 && this.#expected === FILL);
      if (!isNext) this.#tally.fault(`stalling: ${number} came for ${this.#expected}`);
      this.#expected = number + 1;
      this.#hasAll = this.#expected === OVERRUN;
    }
  }
}
