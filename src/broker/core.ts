import { BrokerError, type ErrorCode } from "../base/errors.ts";
import { randomName } from "../base/random.ts";
import { after, allowQuiet, now } from "../base/runtime.ts";
import { departureOf, type Stalls, watch } from "../base/timeout-queue.ts";
import { checkNumbers } from "../base/validate.ts";
import { bind } from "../delivery/connection-lifetime.ts";
import { Announcer } from "../delivery/control-events.ts";
import { type Published, type PublishOptions, type Reported, Reports } from "../delivery/delivery-report.ts";
import { Fanout } from "../delivery/fanout.ts";
import type { Rhythm } from "../delivery/flush-scheduler.ts";
import { Heartbeat } from "../delivery/heartbeat.ts";
import { Listener, type ListenerHome } from "../delivery/listener.ts";
import {
  Client,
  type ClientHome,
  type ClientInfo,
  type DisconnectReason,
  type Member,
} from "../delivery/stream-connection.ts";
import type { Appended, Session } from "../engine/engine.ts";
import { inboxKey, keysOfClient, NameRules } from "../event/channel-key.ts";
import { type EventInput, prepareEvent } from "../event/event.ts";
import { formatPosition } from "../event/position.ts";
import { type Admission, Gate } from "../http/authorize.ts";
import { landAt, type Start, type Surveyed, surveyElsewhere } from "../log/resume.ts";
import type { Entered, Order, Presence } from "../shared-log/shared-log.ts";
import { Capacity } from "./connection-limits.ts";
import { Recipients } from "./known-clients.ts";
import type { ErrorStage, Settings } from "./options.ts";

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
  readonly recipients: Recipients;
  readonly #reports: Reports;
  readonly disconnects: Partial<Record<DisconnectReason, number>> = {};
  /** Requests that were not answered as they wished. */
  readonly failures: Partial<Record<ErrorCode, number>> = {};
  published = 0;
  session: Session | undefined;
  #connections = 0;
  #prefix = "";
  #closing: Promise<void> | undefined;
  /** What the engine was asked to append and has not answered. */
  readonly #appends = new Set<Promise<unknown>>();
  /** When each was made known to other processes, where those are. */
  readonly #entered = new WeakMap<Member, number>();
  /** Streams that were told to end and have not. */
  readonly #departures = new Set<Promise<unknown>>();

  constructor(settings: Settings, rhythm?: Rhythm) {
    this.settings = settings;
    this.names = new NameRules(settings);
    this.#capacity = new Capacity(settings, () => this.clients.size + this.departing.size);
    this.gate = new Gate(settings.maxPending, settings.authorizeTimeout);
    this.recipients = new Recipients(settings);
    this.fanout = new Fanout(
      {
        appended: (entry) => this.#reports.appended(entry),
        overran: () => void this.background("overrun", new Error(OVERRUN)),
        ordered: (order) => this.#obey(order),
        failed: (error) => this.#failed(error),
      },
      rhythm,
    );
    this.#reports = new Reports(this.fanout, settings.timeout);
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

  isBarred(clientId: string): boolean | Promise<boolean> {
    return this.recipients.isBarredAnywhere(clientId);
  }

  /** At the first use and not before: a module's scope may do nothing on Workers. */
  open(): Session {
    if (this.session) return this.session;
    this.#prefix = randomName(8);
    const session = this.settings.engine.open(this.fanout);
    this.fanout.open(session);
    this.recipients.open(session);
    this.session = session;
    return session;
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
    const { settings, recipients } = this;
    const session = this.open();
    const keys = keysOfClient(clientId, channels);
    const presence = { clientId, subject };
    let entered: Entered | undefined;
    let survey: Surveyed | undefined;
    const subscribed = session.subscribe?.(keys);
    // No turn is lost where there is nothing to wait for: what is published right after the call is for this client too.
    if (subscribed !== undefined) await subscribed;
    try {
      const entering = recipients.enter(presence);
      if (entering !== undefined) entered = await entering;
      const surveying = surveyElsewhere(session, keys, start, settings.maxReplay);
      if (surveying !== undefined) survey = await surveying;
      this.checkOpen();
      if (request.signal.aborted) throw new BrokerError("client-left", "Connection refused: the client has left.");
      if (survey && survey.epoch !== session.log.epoch)
        throw new BrokerError("engine-down", "Connection refused: the log began anew meanwhile.");
      if (entered === "barred" || recipients.isBarred(clientId)) {
        this.#turnBack(keys, presence, entered);
        return undefined;
      }
      const sharing = this.fanout.clientsOf([inboxKey(clientId)]);
      for (const client of this.#capacity.makeRoom(clientId, subject, sharing, since))
        this.#dismiss(client, "replaced", false, NOT_SOON);
    } catch (error) {
      this.#turnBack(keys, presence, entered);
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
    if (typeof entered === "number") this.#entered.set(client, entered);
    const landing = landAt(session.log, client.channels, start, settings.maxReplay, survey);
    client.startAt(landing, this.announcer.prelude(client, landing, since !== undefined));
    place();
    this.enroll(client);
    void this.#hook("on-connect", settings.onConnect, { client: info, request });
    return client;
  }

  #turnBack(keys: readonly string[], presence: Presence, entered: Entered | undefined): void {
    this.session?.unsubscribe?.(keys);
    if (entered !== undefined && entered !== "barred") this.recipients.turnBack(presence);
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

  #failed(error: unknown): void {
    // That it is away `stats()` says, and the engine has said why; whatever is tried meanwhile says no more.
    if (!(error instanceof BrokerError && error.code === "engine-down")) void this.background("engine", error);
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
    if (this.fanout.leave(client)) this.session?.unsubscribe?.(client.channels.map(({ key }) => key));
  }

  retire(client: Member, reason: DisconnectReason): void {
    this.clients.delete(client);
    this.recipients.left({ clientId: client.id, subject: client.info.subject });
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
    const session = this.open();
    if (recipient !== undefined) this.recipients.check(recipient, this.fanout.countClients([inboxKey(recipient)]) > 0);
    const text = prepareEvent(event, this.settings);
    const answered = report ? this.#reports.expect(keys) : undefined;
    let position: Appended;
    try {
      const answer = session.append(keys, text, nonce, recipient);
      position = "seq" in answer ? answer : await track(this.#appends, answer);
    } catch (error) {
      answered?.();
      throw error;
    }
    if (!position.repeated) this.published++;
    const watch = answered?.(position);
    const id = formatPosition(position.epoch, position.seq);
    const published = { id, clients: watch?.clients ?? this.fanout.countClients(keys) };
    const ready = this.fanout.ready();
    if (ready !== undefined) await ready;
    return watch ? { ...published, report: watch.done } : published;
  }

  listen(keys: readonly string[], start: Start, signal: AbortSignal | undefined): Listener {
    this.checkOpen();
    const { fanout } = this;
    const session = this.open();
    const home: ListenerHome = {
      fanout,
      session,
      land: (joined, survey) => landAt(session.log, joined, start, {}, survey),
      survey: () => surveyElsewhere(session, keys, start, {}),
      isClosed: () => this.isClosed,
    };
    return new Listener(home, keys, signal);
  }

  disconnect(id: string, barFor: number): number | Promise<number> {
    checkNumbers("disconnect()", { for: barFor }, 0);
    this.open();
    this.recipients.bar(id, barFor);
    const clients = this.fanout.clientsOf([inboxKey(id)]);
    for (const client of clients) this.#dismiss(client, "disconnected", barFor <= 0);
    const elsewhere = this.recipients.disconnect(id, barFor);
    return typeof elsewhere === "number" ? clients.size + elsewhere : elsewhere.then((others) => clients.size + others);
  }

  /** Does what another process asks for, to those who were there when it did. */
  #obey({ do: what, clientId, subject, barFor, at = Infinity }: Order): void {
    const isOver = what === "disconnect";
    if (isOver) this.recipients.bar(clientId, barFor);
    for (const client of this.fanout.clientsOf([inboxKey(clientId)])) {
      if ((this.#entered.get(client) ?? 0) > at) continue;
      if (isOver) this.#dismiss(client, "disconnected", barFor <= 0);
      else if (client.info.subject === subject) this.#dismiss(client, "replaced", false, NOT_SOON);
    }
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
    this.session?.close(this.settings.inboxLinger);
    this.recipients.clear();
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
