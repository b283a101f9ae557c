import { Announcer } from "./announcer.ts";
import { type Admission, Gate } from "./authorize.ts";
import type { BrokerStats } from "./broker.ts";
import { Capacity } from "./capacity.ts";
import { checkNumbers } from "./check.ts";
import { Client, type ClientHome, type ClientInfo, type DisconnectReason, type Member } from "./client.ts";
import { Deadlines } from "./deadlines.ts";
import type { Session } from "./engine.ts";
import { BrokerError, type ErrorCode, quote } from "./errors.ts";
import { type EventInput, prepareEvent } from "./event.ts";
import { Fanout } from "./fanout.ts";
import { Heartbeat } from "./heartbeat.ts";
import { landAt, type Start } from "./landing.ts";
import { bind } from "./lifetime.ts";
import { Listener } from "./listener.ts";
import { inboxKey, keysOfClient, NameRules } from "./names.ts";
import type { ErrorStage, Settings } from "./options.ts";
import { randomName } from "./random.ts";
import { type Published, type PublishOptions, Report, type Reported } from "./report.ts";
import { after, allowQuiet, now } from "./runtime.ts";
import { departureOf, type Stalls, watch } from "./stalls.ts";

const OVERRUN = "Publishing overran the log: more was published at once than logBytes holds.";
/** Streams that `close({ over })` ends one after another are at least so many milliseconds apart. */
const LEAVING_STEP = 10;
/** The longest that ends are spread over, an hour. */
const LONGEST_CLOSE = 3_600_000;
/** A day: a native EventSource whose place another connection took is not to take it back. */
export const NOT_SOON = 86_400_000;

/** Who comes. */
interface Arrival {
  readonly request: Request;
  readonly subject?: string | undefined;
  readonly clientId: string;
  readonly channels: readonly string[];
  readonly start: Start;
  /** When it connected first (epoch milliseconds), if its stream goes on: it is told nothing but what it has missed. */
  readonly since?: number | undefined;
}

/** The broker without its HTTP face: who is connected, and how an event gets to them. */
export class Core implements ClientHome {
  readonly settings: Settings;
  readonly fanout: Fanout;
  readonly heartbeat: Heartbeat<Client>;
  readonly announcer: Announcer;
  readonly stalled: Stalls<Member>;
  readonly starting: Stalls<Client>;
  readonly departing: Stalls<Member>;
  readonly clients: Set<Member> = new Set();
  readonly names: NameRules;
  readonly gate: Gate;
  readonly #capacity: Capacity;
  /** Ids that are turned away. */
  readonly #barred = new Deadlines();
  /** Ids that had a client not long ago. */
  readonly #lingering = new Deadlines();
  #expectedUntil = -Infinity;
  readonly disconnects: Partial<Record<DisconnectReason, number>> = {};
  /** Requests that were not answered as they wished. */
  readonly failures: Partial<Record<ErrorCode, number>> = {};
  published = 0;
  #session: Session | undefined;
  #connections = 0;
  #prefix = "";
  #closing: Promise<void> | undefined;
  /** What the engine was asked to append and has not answered. */
  readonly #appends = new Set<Promise<unknown>>();
  /** Streams that were told to end and have not. */
  readonly #departures = new Set<Promise<unknown>>();

  /** With `window` flushes are so many milliseconds apart, where the clock cannot be trusted to say how long one took. */
  constructor(settings: Settings, window?: number) {
    this.settings = settings;
    this.names = new NameRules(settings);
    this.#capacity = new Capacity(settings, () => this.clients.size + this.departing.size);
    this.gate = new Gate(settings.maxPending, settings.authorizeTimeout);
    this.fanout = new Fanout(() => void this.background("overrun", new Error(OVERRUN)), window);
    this.heartbeat = new Heartbeat(settings.heartbeat, (client) => client.keepAlive());
    this.announcer = new Announcer(settings, this.fanout, this.heartbeat);
    ({
      stalled: this.stalled,
      starting: this.starting,
      departing: this.departing,
    } = watch(settings.timeout, settings.tolerance));
  }

  reserve(): (() => void) | undefined {
    return this.#capacity.reserve();
  }

  keepOpen(request: Request, context: unknown): void {
    const { heartbeat, timeout, tolerance } = this.settings;
    // Long enough for the broker's own rule to come first, and short enough that a dead socket is still closed.
    allowQuiet(context, request, Math.max(3 * heartbeat, timeout * Math.max(1, tolerance) + heartbeat));
  }

  isBarred(clientId: string): boolean {
    return this.#barred.has(clientId);
  }

  /** At the first use and not before: a module's scope may do nothing on Workers. */
  open(): Session {
    if (!this.#session) {
      this.#session = this.settings.engine.open(this.fanout);
      this.fanout.open(this.#session);
      this.#session.keep?.("barred", this.#barred);
      this.#session.keep?.("lingering", this.#lingering);
      this.#prefix = randomName(8);
    }
    return this.#session;
  }

  get isClosed(): boolean {
    return this.#closing !== undefined;
  }

  /** @throws {@link BrokerError} `closed` */
  checkOpen(): void {
    if (this.isClosed) throw new BrokerError("closed", "Refused: the broker is closing.");
  }

  /**
   * Registers a client; `undefined` for one that is turned away. `place` is given back when it has one of its own.
   *
   * @throws {@link BrokerError} `closed`, `client-left` if it left before it was registered, `duplicate-id`, `at-capacity`.
   */
  async connect(
    request: Request,
    { subject, channels, expiresAt }: Admission,
    clientId: string,
    start: Start,
    place: () => void,
  ): Promise<ReadableStream<Uint8Array> | undefined> {
    const { settings, heartbeat } = this;
    const client = await this.register({ request, subject, channels, clientId, start }, place, (info, keys) => {
      const client = new Client(this, info, keys);
      bind(client, request, expiresAt, settings.maxAge, () => this.#dismiss(client, "max-age", true));
      heartbeat.add(client);
      return client;
    });
    return client?.stream();
  }

  /**
   * Registers a connection that `make` makes; `undefined` for one that is turned away.
   *
   * @throws as {@link connect}
   */
  async register<M extends Member>(
    { request, subject, channels, clientId, start, since }: Arrival,
    place: () => void,
    make: (info: ClientInfo, keys: readonly string[]) => M,
  ): Promise<M | undefined> {
    const { settings } = this;
    const session = this.open();
    const keys = keysOfClient(clientId, channels);
    const subscribed = session.subscribe?.(keys);
    // No turn is lost where there is nothing to wait for: what is published right after the call is for this client too.
    if (subscribed !== undefined) await subscribed;
    try {
      this.checkOpen();
      if (request.signal.aborted) throw new BrokerError("client-left", "Connection refused: the client has left.");
      if (this.#barred.has(clientId)) {
        session.unsubscribe?.(keys);
        return undefined;
      }
      const sharing = this.#recipientsOf([inboxKey(clientId)]);
      for (const client of this.#capacity.makeRoom(clientId, subject, sharing, since))
        this.#dismiss(client, "replaced", false, NOT_SOON);
    } catch (error) {
      session.unsubscribe?.(keys);
      throw error;
    }

    const info: ClientInfo = Object.freeze({
      clientId,
      connectionId: `${this.#prefix}-${++this.#connections}`,
      ...(subject === undefined ? {} : { subject }),
      channels: Object.freeze(channels),
      connectedAt: since ?? Date.now(),
    });
    const client = make(info, keys);
    const landing = landAt(this.fanout.log, client.channels, start, settings.maxReplay);
    client.startAt(landing, this.announcer.prelude(client, landing, since !== undefined));
    place();
    this.enroll(client);
    void this.#hook("on-connect", settings.onConnect, { client: info, request });
    return client;
  }

  /** Counts a connection in, until it is over. */
  enroll(client: Member): void {
    const { subject } = client.info;
    const { release } = client;
    this.clients.add(client);
    this.#capacity.count(subject, 1);
    client.release = () => {
      this.#capacity.count(subject, -1);
      release?.();
    };
  }

  /** Ends a client with a word, without what it has not read. */
  #dismiss(client: Member, reason: DisconnectReason, reconnect: boolean, retry?: number): void {
    void track(this.#departures, client.leave(reason, this.announcer.farewell(reason, reconnect, retry), false));
  }

  pulseFor(client: Client): Uint8Array<ArrayBuffer> {
    return this.announcer.pulse(client);
  }

  farewell(reason: DisconnectReason | ErrorCode, reconnect: boolean): Uint8Array<ArrayBuffer> {
    return this.announcer.farewell(reason, reconnect);
  }

  part(client: Member): void {
    if (this.fanout.leave(client)) this.#session?.unsubscribe?.(client.channels.map(({ key }) => key));
  }

  retire(client: Member, reason: DisconnectReason): void {
    this.clients.delete(client);
    this.#lingering.set(client.id, this.settings.inboxLinger, true);
    if (client instanceof Client) this.heartbeat.delete(client);
    this.stalled.delete(client);
    this.disconnects[reason] = (this.disconnects[reason] ?? 0) + 1;
    // Not from here: a flush may be going on, and what the hook does would come in between.
    queueMicrotask(() => void this.#hook("on-disconnect", this.settings.onDisconnect, { client: client.info, reason }));
  }

  /**
   * Appends an event; what is returned resolves when the publisher may go on.
   *
   * @throws {@link BrokerError} `unknown-client` if nobody of the recipient's id is connected, or was within `inboxLinger`.
   */
  async publish(
    keys: readonly string[],
    event: EventInput,
    { report, nonce, recipient }: PublishOptions = {},
  ): Promise<Published | Reported> {
    this.checkOpen();
    if (recipient !== undefined) this.#checkRecipient(recipient);
    const appended = this.open().append(keys, prepareEvent(event, this.settings), nonce);
    const { seq, repeated } = "seq" in appended ? appended : await track(this.#appends, appended);
    if (!repeated) this.published++;
    const watch = report ? new Report(seq, this.#waitersFor(keys, seq, repeated), this.settings.timeout) : undefined;
    const published = { id: this.fanout.log.id(seq), clients: this.#countClients(keys) };
    const ready = this.fanout.ready();
    if (ready !== undefined) await ready;
    return watch ? { ...published, report: watch.done } : published;
  }

  /** Clients of before, nobody knows which, are about to come back: for so many milliseconds every one is taken to exist. */
  expectReturns(ms: number): void {
    this.#expectedUntil = now() + ms;
  }

  /** Milliseconds that this holds on. */
  get expectedFor(): number {
    return this.#expectedUntil - now();
  }

  #checkRecipient(id: string): void {
    if (this.fanout.countClients(inboxKey(id)) > 0 || this.#lingering.has(id) || this.expectedFor > 0) return;
    throw new BrokerError("unknown-client", `Event refused: there is no client ${quote(id)}.`);
  }

  #recipientsOf(keys: readonly string[]): Set<Member> {
    const clients = new Set<Member>();
    for (const key of keys) {
      // A listener is none.
      for (const subscriber of this.fanout.subscribers(key))
        if ("info" in subscriber) clients.add(subscriber as Member);
    }
    return clients;
  }

  /** Who an event is for; of one that was `repeated`, those who have not got it yet: whether the others did is not known any more. */
  #waitersFor(keys: readonly string[], seq: number, repeated: boolean): Set<Member> {
    const clients = this.#recipientsOf(keys);
    if (repeated) for (const client of clients) if (client.cursor >= seq) clients.delete(client);
    return clients;
  }

  #countClients(keys: readonly string[]): number {
    const [key, ...others] = keys;
    return key === undefined || others.length > 0 ? this.#recipientsOf(keys).size : this.fanout.countClients(key);
  }

  listen(keys: readonly string[], start: Start, signal: AbortSignal | undefined): Listener {
    this.checkOpen();
    this.open();
    return new Listener(
      this.fanout,
      keys,
      (joined) => landAt(this.fanout.log, joined, start, {}),
      () => this.isClosed,
      signal,
    );
  }

  disconnect(id: string, barFor: number): number {
    checkNumbers("disconnect()", { for: barFor }, 0);
    if (barFor > 0) this.#barred.set(id, barFor, true);
    const clients = this.#recipientsOf([inboxKey(id)]);
    for (const client of clients) this.#dismiss(client, "disconnected", barFor <= 0);
    return clients.size;
  }

  close(over: number): Promise<void> {
    checkNumbers("close()", { over }, 0);
    return (this.#closing ??= this.#close(Math.min(over, LONGEST_CLOSE)));
  }

  async #close(over: number): Promise<void> {
    // What the engine was asked before is handed on as well, or refused. At least a turn, so that `isClosed` holds from here on.
    await new Promise<void>((resolve) => {
      const cancel = after(departureOf(this.settings.timeout), resolve);
      void Promise.allSettled(this.#appends).then(cancel).then(resolve);
    });
    this.fanout.close();
    const clients = [...this.clients];
    const began = now();
    const steps = Math.max(1, Math.min(clients.length, Math.floor(over / LEAVING_STEP)));
    for (let step = 0; step < steps; step++) {
      // By the clock, because each timer is a little late.
      const wait = began + (step * over) / steps - now();
      if (wait > 0) await new Promise<void>((resolve) => after(wait, resolve));
      for (let index = step; index < clients.length; index += steps) {
        const client = clients[index] as Member;
        void track(this.#departures, client.leave("closing", this.announcer.farewell("closing", true), true));
      }
    }
    await Promise.all(this.#departures);
    this.gate.close();
    this.stalled.clear();
    this.starting.clear();
    this.departing.clear();
    this.#session?.close();
    this.#barred.clear();
    this.#lingering.clear();
  }

  stats(): BrokerStats {
    const { fanout } = this;
    const session = this.#session;
    const log = session?.log;
    return {
      clients: this.clients.size,
      recipients: new Set(Array.from(this.clients, ({ id }) => id)).size,
      blocked: this.stalled.size,
      departing: this.departing.size,
      pending: this.gate.pending,
      channels: fanout.channels,
      published: this.published,
      handed: fanout.handed,
      bytes: fanout.bytes,
      replayed: fanout.replayed,
      gaps: fanout.gaps,
      overruns: fanout.overruns,
      disconnects: { ...this.disconnects },
      failures: { ...this.failures },
      engine: session ? (session.state ?? "up") : "idle",
      log: { events: log?.size ?? 0, bytes: log?.bytes ?? 0, channels: log?.channels ?? 0 },
    };
  }

  /** Reports what nobody was there to receive. Never rejects. */
  async background(stage: ErrorStage, error: unknown): Promise<void> {
    // Not from here: an append or a flush may be going on.
    await undefined;
    try {
      await this.settings.onError?.({ error, stage });
    } catch {
      // onError is where errors end; one of its own has no other place to go.
    }
  }

  /** Calls a hook at once, and waits for it only to hear of its errors. Never rejects. */
  async #hook<T>(stage: ErrorStage, hook: ((event: T) => unknown) | undefined, event: T): Promise<void> {
    try {
      await hook?.(event);
    } catch (error) {
      await this.background(stage, error);
    }
  }
}

/** Keeps a promise in a set for as long as it is pending. */
function track<T>(pending: Set<Promise<unknown>>, promise: Promise<T>): Promise<T> {
  const settled = (): unknown => pending.delete(promise);
  pending.add(promise);
  promise.then(settled, settled);
  return promise;
}
