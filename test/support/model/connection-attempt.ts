// One attempt of a simulated client to connect, from its request to the end of its stream.
import type { ClientInfo, DisconnectReason, ListenOptions } from "../../../src/index.ts";
import type { Clock } from "../clock.ts";
import { clientRequest } from "../test-broker.ts";
import type { Drop, ReaderPlan } from "./history.ts";
import type { Instance } from "./instance.ts";
import { type Item, inboxName } from "./items.ts";
import type { StartOption } from "./reader.ts";
import { VirtualSocket } from "./socket.ts";
import type { Membership } from "./stream-oracle.ts";

/** Milliseconds until a server notices a client that left without a sign. */
const UNNOTICED_MS = 1_500;
/** An id of a log that this history does not have. */
export const FOREIGN_ID = "elsewhere-7";

/** The options of the starts that read retained events without an id. */
export const RETAINED_STARTS: { readonly [start in StartOption]?: Pick<ListenOptions, "from" | "last"> } = {
  earliest: { from: "earliest" },
  latest: { from: "latest" },
  "newest two": { last: 2 },
};

/** The registration of a connection, as the broker's hooks report it. */
export interface Registered {
  readonly at: number;
  readonly info: ClientInfo;
  /** The rank of the newest event of all at that time. */
  readonly head: number;
}

/** An attempt to connect, and everything that came of it. Times are milliseconds of the simulation's clock. */
export class ConnectionAttempt {
  readonly plan: ReaderPlan;
  readonly instance: Instance;
  /** The `Last-Event-ID` of the request. */
  readonly lastEventId: string | undefined;
  readonly channels: readonly string[];
  readonly request: Request;
  /** When the grant expires. */
  readonly expiresAt: number;
  readonly calledAt: number;
  answeredAt = Infinity;
  status: number | undefined;
  socket: VirtualSocket | undefined;
  registered: Registered | undefined;
  closed: { readonly at: number; readonly reason: DisconnectReason } | undefined;
  /** When the server learned that the client had left. */
  leftAt: number | undefined;
  /** The state in which the client dropped the connection, if it did. */
  droppedWhile: "connecting" | "behind" | "reading" | undefined;
  readonly memberships: Membership[] = [];
  /** What the client has read, each item with the rank of its id. */
  readonly received: (readonly [Item, rank: number])[] = [];
  readonly #clock: Clock;
  readonly #abort = new AbortController();
  #isDropped = false;

  constructor(plan: ReaderPlan, instance: Instance, lastEventId: string | undefined, clock: Clock) {
    this.plan = plan;
    this.instance = instance;
    this.lastEventId = lastEventId;
    this.#clock = clock;
    this.channels = channelsOf(plan);
    this.calledAt = clock.time;
    this.expiresAt = clock.time + plan.lifetime;
    const { id, channels, start } = plan;
    const parameters = Object.entries(RETAINED_STARTS[start] ?? {});
    const query = Object.fromEntries(parameters.map(([name, value]) => [name, `${value}`]));
    // Not as an EventSource, which is told in a stream, and not by a status, when to come back.
    const headers = { accept: "*/*" };
    const options = { id, channel: channels, query, headers, ...(lastEventId === undefined ? {} : { lastEventId }) };
    this.request = clientRequest(options, this.#abort.signal);
  }

  /** Whether the request has an id of this history. */
  get isResumed(): boolean {
    return this.lastEventId !== undefined && this.lastEventId !== FOREIGN_ID;
  }

  /** Whether the attempt got no stream, or the client has read its stream to the end. */
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
    if (status !== 200 || !body || !this.registered) return;
    this.socket = new VirtualSocket(body, capacity, () => this.#clock.time);
    // The server's runtime finds that the client has left before it could answer.
    if (!this.#isDropped) return;
    this.leftAt ??= this.#clock.time;
    this.socket.leave();
  }

  /** The client leaves. */
  drop(how: Drop): void {
    this.#isDropped = true;
    const { socket } = this;
    if (!socket) this.droppedWhile = "connecting";
    else if (!socket.ended) this.droppedWhile = socket.hasUnread ? "behind" : "reading";
    if (how === "cancel") this.#leave();
    else if (how === "abort") this.#leave(this.#abort);
    else {
      this.socket?.limitCapacity();
      if (how === "unnoticed") this.#clock.at(this.#clock.time + UNNOTICED_MS, () => this.#leave());
    }
  }

  /** The server notices that the client has left. */
  notice(): void {
    this.#isDropped = true;
    this.#leave();
  }

  #leave(abort?: AbortController): void {
    // Without a signal, the server learns that the client left only when it has an answer for it.
    const { socket } = this;
    if (this.leftAt !== undefined || socket?.ended || (!socket && !abort)) return;
    this.leftAt = this.#clock.time;
    if (socket) socket.leave(abort);
    else abort?.abort();
  }
}

/** Returns the public names of all channels that a reader reads. */
export function channelsOf({ kind, id, channels }: ReaderPlan): readonly string[] {
  if (kind === "client") return ["fanwire-common", inboxName(id), ...channels];
  return channels.length > 0 ? channels : ["fanwire-common"];
}

/** Returns the rank of the `Last-Event-ID` of a request, or 0 if it has none of this history. */
export const rankOfRequest = (attempt: ConnectionAttempt, rankOf: (id: string) => number): number =>
  attempt.isResumed ? rankOf(attempt.lastEventId ?? "") : 0;
