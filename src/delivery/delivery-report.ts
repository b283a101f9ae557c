// Delivery reports: which connections received an event, and why others did not.
import { after } from "../base/runtime.ts";
import type { AppendResult } from "../engine/engine.ts";
import { formatPosition } from "../event/position.ts";
import { type Batch, holdsEvent, startIn } from "../log/batch.ts";
import type { Entry } from "../log/channel-log.ts";
import type { Log } from "../log/log.ts";
import type { ChannelIndex } from "./channel-index.ts";
import type { Connection, DeliveryWatcher, FailureReason } from "./connection.ts";

/** The answer to a publish of an ephemeral event, or of one for one connection. */
export interface Sent {
  /**
   * The connections of this process that the event is for, counted at the append. Without a report, and with an engine that answers later,
   * they are counted when it has answered.
   */
  readonly clients: number;
}

/** The answer to a publish. */
export interface Published extends Sent {
  /** The event's id, as clients receive it. */
  readonly id: string;
}

/** Internal options of a publish. */
export interface PublishOptions {
  /** Whether the event is sent at most once, to connections that can take it now. */
  readonly ephemeral?: boolean | undefined;
  /** The one connection of the recipient that the event is for. */
  readonly connectionId?: string | undefined;
  readonly report?: boolean | undefined;
  /** Identifies the event: a repeat with the same key is not published again. */
  readonly idempotencyKey?: string | undefined;
  /** The client id that the event is for, if it is for one client. */
  readonly recipient?: string | undefined;
  /** Whether the data is the body of a request, so that a schema gets what it says as JSON. */
  readonly isBody?: boolean;
  /** The publisher, as `authorize` says. */
  readonly subject?: string | undefined;
}

/** The answer to `{ report: true }`. */
export interface Reported extends Published {
  /** Settles within `timeout`, never rejects. */
  readonly report: Promise<DeliveryReport>;
}

/** A connection that an event was not sent to. */
export interface Failure {
  readonly clientId: string;
  readonly connectionId: string;
  readonly reason: FailureReason;
}

/** The fate of an event at the connections that this process had when it was appended. */
export interface DeliveryReport {
  /** Number of connections it was sent to. Sent means given to the runtime, not received. */
  readonly sent: number;
  readonly failed: readonly Failure[];
}

/** Watches one event until every connection it is for has received it or failed. */
export class ReportTracker implements DeliveryWatcher {
  readonly done: Promise<DeliveryReport>;
  /** Number of connections that the report covers. */
  readonly clients: number;
  /** A publisher waits for this report. */
  isWanted = false;
  readonly #seq: number;
  readonly #waiting: Set<Connection>;
  readonly #failed: Failure[] = [];
  #sent = 0;
  #resolve!: (report: DeliveryReport) => void;
  #cancel: (() => void) | undefined;

  /** `connections` are those of the event's channels, whose keys are `keys`. */
  constructor(seq: number, keys: readonly string[], connections: Set<Connection>, timeout: number) {
    this.#seq = seq;
    this.#waiting = connections;
    this.done = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    for (const connection of connections) {
      if (isPast(connection, seq, keys)) connections.delete(connection);
      else (connection.reports ??= new Set()).add(this);
    }
    this.clients = connections.size;
    // Keeps the process alive, because the publisher may await the report.
    this.#cancel = after(timeout, () => this.settle("late"));
    this.#settleIfDone();
  }

  /** A connection received a batch. */
  sentTo(connection: Connection, batch: Batch): void {
    if (batch.through < this.#seq) return;
    if (holdsEvent(batch, this.#seq)) {
      this.#sent++;
      this.#forget(connection);
      this.#settleIfDone();
    } else {
      this.failedFor(connection, "lost");
    }
  }

  failedFor(connection: Connection, reason: FailureReason): void {
    this.#failed.push({ clientId: connection.id, connectionId: connection.connectionId, reason });
    this.#forget(connection);
    this.#settleIfDone();
  }

  /** Fails all connections that are still waited for. */
  settle(reason: FailureReason): void {
    for (const connection of this.#waiting) this.failedFor(connection, reason);
  }

  #forget(connection: Connection): void {
    this.#waiting.delete(connection);
    connection.reports?.delete(this);
  }

  #settleIfDone(): void {
    if (this.#waiting.size > 0) return;
    this.#cancel?.();
    this.#resolve({ sent: this.#sent, failed: this.#failed });
  }
}

/** The fan-out, as far as reports need it. */
export interface ReportSource {
  readonly log: Pick<Log, "epoch" | "id">;
  readonly channels: Pick<ChannelIndex, "connectionsOf" | "countConnections">;
}

/** A publish with a report whose position is not known yet. */
interface PendingPublish {
  /** The event's id, once the engine has answered; empty if the publish failed. */
  id?: string;
}

/** Pending publishes to the same set of channels. */
interface PendingReports {
  /** In the order of the calls, which is the order of the events. */
  readonly publishes: PendingPublish[];
  /** A report for each event of these channels since then, by id. Which publish it belongs to is known when the engine has answered. */
  readonly reports: Map<string, ReportTracker>;
}

/** Extra reports per set of channels, besides one for each pending publish: they may be events of other processes. */
const MAX_FOREIGN_REPORTS = 64;

/**
 * Starts reports as events are appended. The engine may answer a publish later; by then the event may have been sent, and connections may have
 * come and gone.
 */
export class DeliveryReports {
  readonly #fanout: ReportSource;
  readonly #timeout: number;
  readonly #pending = new Map<string, PendingReports>();

  /** `timeout` is the time after which a report settles, in milliseconds. */
  constructor(fanout: ReportSource, timeout: number) {
    this.#fanout = fanout;
    this.#timeout = timeout;
  }

  /**
   * Announces a publish with a report, before the engine is asked. The caller calls the returned function once: with the engine's answer, or
   * with nothing if the publish failed. It returns the report.
   */
  expect(keys: readonly string[]): (position?: AppendResult) => Pick<ReportTracker, "clients" | "done"> | undefined {
    const name = nameOf(keys);
    const pending: PendingReports = this.#pending.get(name) ?? { publishes: [], reports: new Map() };
    const { publishes, reports } = pending;
    const publish: PendingPublish = {};
    this.#pending.set(name, pending);
    publishes.push(publish);
    return (position) => {
      publish.id = position ? formatPosition(position.epoch, position.seq) : "";
      const report = reports.get(publish.id);
      if (report) report.isWanted = true;
      while (publishes[0]?.id !== undefined) forget(reports, publishes.shift()?.id);
      if (publishes.length === 0) {
        forget(reports);
        this.#pending.delete(name);
      }
      return report ?? (position && this.#late(keys, position));
    };
  }

  /** Starts the report of an event, before any connection receives it. */
  onAppended({ keys, seq }: Entry): void {
    const pending = this.#pending.size > 0 && this.#pending.get(nameOf(keys));
    if (!pending) return;
    const { publishes, reports } = pending;
    reports.set(
      this.#fanout.log.id(seq),
      new ReportTracker(seq, keys, this.#fanout.channels.connectionsOf(keys), this.#timeout),
    );
    const [oldest] = reports.keys();
    if (reports.size > publishes.length + MAX_FOREIGN_REPORTS) forget(reports, oldest);
  }

  /** Creates the report of an event that did not reach this process in the meantime: it was appended earlier, or is still to come. */
  #late(keys: readonly string[], { epoch, seq, repeated }: AppendResult): Pick<ReportTracker, "clients" | "done"> {
    const fanout = this.#fanout;
    const isHere = epoch === fanout.log.epoch;
    const connections = fanout.channels.connectionsOf(keys);
    const report = new ReportTracker(isHere ? seq : Infinity, keys, connections, this.#timeout);
    // An event of a previous log is sent to no connection any more.
    if (!isHere) report.settle(repeated ? "lost" : "late");
    return repeated ? { clients: fanout.channels.countConnections(keys), done: report.done } : report;
  }
}

/** Whether a connection joined after an event: its cursor is past it, or it reads the event's channels only from later on. */
const isPast = (connection: Connection, seq: number, keys: readonly string[]): boolean =>
  connection.cursor >= seq ||
  (connection.missingRanges !== undefined &&
    connection.channels.every(({ key }) => !keys.includes(key) || startIn(connection, key) >= seq));

const nameOf = (keys: readonly string[]): string => keys.join("\n");

/** Drops reports that no publish will ask for: those up to an id, or all. */
function forget(reports: Map<string, ReportTracker>, through?: string): void {
  if (through !== undefined && !reports.has(through)) return;
  for (const [id, report] of reports) {
    reports.delete(id);
    if (!report.isWanted) report.settle("late");
    if (id === through) break;
  }
}
