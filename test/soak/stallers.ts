// Clients that stop reading until they are blocked and the log has evicted their events.
import { SocketClient } from "../support/clients/socket-client.ts";
import type { TestBroker } from "../support/servers/server.ts";
import { FLOODED } from "./names.ts";
import type { Tally } from "./tally.ts";

/** Bytes of an event. A few hundred events fill the buffers between the broker and a client that does not read. */
const EVENT_BYTES = 30_000;
/** Events at a time: until all clients are blocked, then more than the log holds at once, and then while they wait to be disconnected. */
const FILL = 50;
const OVERRUN = 100;
const DRIP = 10;
/** Fills after which all clients must be blocked: more than all queues of two kernels hold. */
const MAX_FILLS = 30;
/** Clients that stall together. Half of them read on. */
const CLIENTS = 4;
/** The longest time that one step may take on a busy machine, in milliseconds. */
const MAX_WAIT_MS = 60_000;
/** Milliseconds between two checks. */
const CHECK_MS = 250;

/** Lets clients stall until they are blocked and the log has evicted their events. Half of them read on; the others are disconnected. */
export async function stall(broker: TestBroker, tally: Tally): Promise<void> {
  const flood = (count: number): Promise<unknown> =>
    broker.control("flood", { channel: FLOODED, bytes: EVENT_BYTES, count });
  const before = timeoutsOf(await broker.state());
  const stallers = Array.from({ length: CLIENTS }, (_, n) => new Staller(broker, tally, `staller-${n}`));
  try {
    for (const staller of stallers) await staller.stall();
    for (let fills = 0, seen = 0; seen < 2; fills++) {
      await flood(FILL);
      const state = await broker.state();
      // Checked twice, because a visitor may be blocked for a moment, and the count does not say which client is.
      if (state.stats.blocked + timeoutsOf(state) - before >= CLIENTS) seen++;
      if (fills > MAX_FILLS)
        return tally.fault(`stalling: only ${state.stats.blocked} of ${CLIENTS} clients are blocked`);
    }
    await flood(OVERRUN);
    await Promise.all(stallers.slice(CLIENTS / 2).map((staller) => staller.readOn()));
    const stuck = stallers.slice(0, CLIENTS / 2);
    for (const deadline = performance.now() + MAX_WAIT_MS; !(await all(stuck.map((staller) => staller.isGone()))); ) {
      if (performance.now() > deadline) return tally.fault("stalling: clients that do not read are not disconnected");
      await flood(DRIP);
      await new Promise((resolve) => setTimeout(resolve, CHECK_MS));
    }
    // Bun has a timeout of its own, and on a busy machine it may come first.
    tally.stalledOut += timeoutsOf(await broker.state()) - before;
  } finally {
    for (const staller of stallers) staller.leave();
  }
}

const timeoutsOf = ({ stats }: Awaited<ReturnType<TestBroker["state"]>>): number => stats.disconnects.timeout ?? 0;

const all = async (conditions: Promise<boolean>[]): Promise<boolean> =>
  !(await Promise.all(conditions)).includes(false);

/** A client that stops reading. */
class Staller {
  readonly #broker: TestBroker;
  readonly #id: string;
  readonly #client: SocketClient;
  readonly #tally: Tally;
  #expected = 0;
  #hasGap = false;
  #hasAll = false;

  constructor(broker: TestBroker, tally: Tally, id: string) {
    this.#broker = broker;
    this.#id = id;
    this.#tally = tally;
    this.#client = new SocketClient(broker.server.url + broker.path(`connect?id=${id}&channel=${FLOODED}`));
    tally.connects++;
  }

  async stall(): Promise<void> {
    await this.#client.untilReady();
    this.#tally.answered++;
    this.#client.pause();
  }

  /** Reads on until the client receives a gap or everything, or was disconnected before. */
  async readOn(): Promise<void> {
    const client = this.#client;
    client.socket.on("data", () => this.#take());
    client.resume();
    const timer = setTimeout(() => {
      const { receivedBytes, lastEventId } = client;
      this.#tally.fault(
        `stalling: a client that reads on does not receive the rest: ${receivedBytes} bytes received, the last id is ${lastEventId}, event ${this.#expected} is next`,
      );
      client.leave();
    }, MAX_WAIT_MS);
    // A client that was disconnected receives neither, and `until` rejects.
    await client.until(() => this.#hasGap || this.#hasAll).catch(() => undefined);
    clearTimeout(timer);
    if (this.#hasGap) this.#tally.overruns++;
  }

  /** Whether the broker no longer knows the client. */
  async isGone(): Promise<boolean> {
    const answer = await this.#broker.publish("are you there?", `?id=${this.#id}`);
    return answer.status === 404 || ((await answer.json()) as { clients: number }).clients === 0;
  }

  leave(): void {
    this.#client.reset();
    this.#tally.resets++;
  }

  #take(): void {
    for (const { event, data } of this.#client.events.splice(0)) {
      if (event === "fanwire-gap") this.#hasGap = true;
      const number = Number.parseInt(data, 10);
      // Events to every client come in between.
      if (event !== undefined || Number.isNaN(number) || this.#hasGap || this.#hasAll) continue;
      const isNext = number === this.#expected || (number === 0 && this.#expected === FILL);
      if (!isNext) this.#tally.fault(`stalling: received event ${number} in place of ${this.#expected}`);
      this.#expected = number + 1;
      this.#hasAll = this.#expected === OVERRUN;
    }
  }
}
