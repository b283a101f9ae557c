import type { ClientInfo, DisconnectReason } from "../../../src/index.ts";
import type { Clock } from "../clock.ts";
import { clientRequest } from "../test-broker.ts";
import type { Drop, Plan } from "./history.ts";
import type { Instance } from "./instance.ts";
import { inboxName } from "./items.ts";
import { VirtualSocket } from "./socket.ts";

/** Milliseconds until a server hears of a client that is gone without a word. */
const UNNOTICED = 1_500;

/** How the broker registered a connection, as its hooks and its stream tell. */
export interface Registered {
  readonly at: number;
  readonly info: ClientInfo;
  /** The place of the newest event of all then. */
  readonly head: number;
}

/** One attempt of a client to connect, and all that came of it. */
export class Visit {
  readonly plan: Plan;
  readonly instance: Instance;
  /** The id that it came with. */
  readonly asked: string | undefined;
  readonly channels: readonly string[];
  readonly request: Request;
  /** When what it was granted ends. */
  readonly expiresAt: number;
  readonly calledAt: number;
  answeredAt = Infinity;
  status: number | undefined;
  socket: VirtualSocket | undefined;
  registered: Registered | undefined;
  gone: { readonly at: number; readonly reason: DisconnectReason } | undefined;
  /** When its server was told that it is gone. */
  leftAt: number | undefined;
  /** In the middle of what it was dropped, if it was. */
  droppedWhile: "connecting" | "behind" | "reading" | undefined;
  readonly #clock: Clock;
  readonly #abort = new AbortController();
  #isDropped = false;

  constructor(plan: Plan, instance: Instance, asked: string | undefined, clock: Clock) {
    this.plan = plan;
    this.instance = instance;
    this.asked = asked;
    this.#clock = clock;
    this.channels = channelsOf(plan);
    this.calledAt = clock.time;
    this.expiresAt = clock.time + plan.lifetime;
    const { id, channels, beginning } = plan;
    const query = beginning === "earliest" ? { from: "earliest" } : {};
    const wish = { id, channel: channels, query, ...(asked === undefined ? {} : { lastEventId: asked }) };
    this.request = clientRequest(wish, this.#abort.signal);
  }

  /** It got no stream, or has read it to its end. */
  get isOver(): boolean {
    return this.socket ? this.socket.isEmpty : this.status !== undefined;
  }

  async connect(): Promise<void> {
    const { id, channels, lifetime, capacity } = this.plan;
    const { broker } = this.instance;
    const expiresAt = Date.now() + lifetime;
    const overrides = lifetime === Infinity ? {} : { authorize: () => ({ clientId: id, channels, expiresAt }) };
    const { status, body } = await broker.clientHandler(this.request, overrides);
    this.status = status;
    this.answeredAt = this.#clock.time;
    // Who was not registered is told when to come back, and no more.
    if (status !== 200 || !body || !this.registered) return;
    this.socket = new VirtualSocket(body, capacity, () => this.#clock.time);
    // Its server's runtime finds that nobody is there to be answered.
    if (!this.#isDropped) return;
    this.leftAt ??= this.#clock.time;
    this.socket.leave();
  }

  drop(how: Drop): void {
    this.#isDropped = true;
    const { socket } = this;
    if (!socket) this.droppedWhile = "connecting";
    else if (!socket.over) this.droppedWhile = socket.hasUnread ? "behind" : "reading";
    if (how === "cancel") this.#tell();
    else if (how === "abort") this.#tell(this.#abort);
    else {
      this.socket?.abandon();
      if (how === "unnoticed") this.#clock.at(this.#clock.time + UNNOTICED, () => this.#tell());
    }
  }

  /** Its server hears that it is gone. */
  notice(): void {
    this.#isDropped = true;
    this.#tell();
  }

  #tell(abort?: AbortController): void {
    // Without a signal, it hears of that when it has an answer.
    const { socket } = this;
    if (this.leftAt !== undefined || socket?.over || (!socket && !abort)) return;
    this.leftAt = this.#clock.time;
    if (socket) socket.leave(abort);
    else abort?.abort();
  }
}

/** Public names of all that a reader reads. */
export function channelsOf({ kind, id, channels }: Plan): readonly string[] {
  if (kind === "client") return ["fanwire-common", inboxName(id), ...channels];
  return channels.length > 0 ? channels : ["fanwire-common"];
}
