import { after } from "../base/runtime.ts";
import type { AppendResult } from "../engine/engine.ts";
import { formatPosition } from "../event/position.ts";
import { type Batch, holdsEvent } from "../log/batch.ts";
import type { Entry } from "../log/channel-log.ts";
import type { Fanout } from "./fanout.ts";
import type { Connection, DisconnectReason } from "./stream-connection.ts";

/** What became of an event when it was published. */
export interface Published {
  /** Its position, as clients see it. */
  readonly id: string;
  /** Clients of this process that it is for: at the time of the append, or without a report and with an engine that answers later when it has. */
  readonly clients: number;
}

/** How to publish. */
export interface PublishOptions {
  readonly report?: boolean | undefined;
  /** What is published again with the same one is not published twice. */
  readonly idempotencyKey?: string | undefined;
  /** The client id that it is for, if it is for one. */
  readonly recipient?: string | undefined;
}

/** The answer to `{ report: true }`. */
export interface Reported extends Published {
  /** Settles within `timeout`, never rejects. */
  readonly report: Promise<DeliveryReport>;
}

/**
 * Why an event did not reach a client: how it ended, `"late"` (it may still come from the log) or `"lost"` (it cannot, and if the client had a
 * claim to it, a gap was told).
 */
export type FailureReason = DisconnectReason | "late" | "lost";

/** A client that an event was not sent to. */
export interface Failure {
  readonly clientId: string;
  readonly connectionId: string;
  readonly reason: FailureReason;
}

/** What became of an event at those who were connected to this process when it was appended. */
export interface DeliveryReport {
  /** How many clients it was sent to: given to the runtime, not received. */
  readonly sent: number;
  readonly failed: readonly Failure[];
}

/** Watches one event until each of its recipients has it or has failed. */
export class ReportTracker {
  readonly done: Promise<DeliveryReport>;
  /** How many clients it is about. */
  readonly clients: number;
  /** Somebody is told of it. */
  isWanted = false;
  readonly #seq: number;
  readonly #waiting: Set<Connection>;
  readonly #failed: Failure[] = [];
  #sent = 0;
  #resolve!: (report: DeliveryReport) => void;
  #cancel: (() => void) | undefined;

  constructor(seq: number, recipients: Set<Connection>, timeout: number) {
    this.#seq = seq;
    this.#waiting = recipients;
    this.done = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    for (const client of recipients) {
      // Whoever is past it came after it.
      if (client.cursor >= seq) recipients.delete(client);
      else (client.reports ??= new Set()).add(this);
    }
    this.clients = recipients.size;
    this.#cancel = after(timeout, () => this.settle("late"), true);
    this.#settleIfDone();
  }

  /** A client was sent a batch. */
  sentTo(client: Connection, batch: Batch): void {
    if (batch.through < this.#seq) return;
    if (holdsEvent(batch, this.#seq)) {
      this.#sent++;
      this.#forget(client);
      this.#settleIfDone();
    } else {
      this.failedFor(client, "lost");
    }
  }

  failedFor(client: Connection, reason: FailureReason): void {
    this.#failed.push({ clientId: client.id, connectionId: client.connectionId, reason });
    this.#forget(client);
    this.#settleIfDone();
  }

  /** Gives up on all who are still waited for. */
  settle(reason: FailureReason): void {
    for (const client of this.#waiting) this.failedFor(client, reason);
  }

  #forget(client: Connection): void {
    this.#waiting.delete(client);
    client.reports?.delete(this);
  }

  #settleIfDone(): void {
    if (this.#waiting.size > 0) return;
    this.#cancel?.();
    this.#resolve({ sent: this.#sent, failed: this.#failed });
  }
}

/** A publisher that wants a report and does not know the position of its event yet. */
interface PendingPublish {
  /** The position, once the engine has answered; empty if there is none. */
  id?: string;
}

/** Those whose events are for the same channels. */
interface PendingReports {
  /** In the order of their calls, which is that of their events. */
  readonly publishers: PendingPublish[];
  /** By position, of each event for these channels since then: whose it is nobody can tell before the engine has answered. */
  readonly reports: Map<string, ReportTracker>;
}

/** Reports of a lane that may be other processes' events, beside one for each publisher. */
const SPARE = 64;

/**
 * Begins reports as events are appended. An engine may answer only later: by then an event may have been sent on, some that it was
 * for may have left, and others come.
 */
export class DeliveryReports {
  readonly #fanout: Pick<Fanout, "log" | "connectionsOf" | "countConnections">;
  readonly #timeout: number;
  readonly #lanes = new Map<string, PendingReports>();

  /** Reports are over after `timeout` milliseconds. */
  constructor(fanout: Pick<Fanout, "log" | "connectionsOf" | "countConnections">, timeout: number) {
    this.#fanout = fanout;
    this.#timeout = timeout;
  }

  /** Before a publisher asks the engine. What is returned has to be called once, with the answer if there is one, and gives the report. */
  expect(keys: readonly string[]): (position?: AppendResult) => Pick<ReportTracker, "clients" | "done"> | undefined {
    const name = nameOf(keys);
    const lane: PendingReports = this.#lanes.get(name) ?? { publishers: [], reports: new Map() };
    const { publishers, reports } = lane;
    const publisher: PendingPublish = {};
    this.#lanes.set(name, lane);
    publishers.push(publisher);
    return (position) => {
      publisher.id = position ? formatPosition(position.epoch, position.seq) : "";
      const report = reports.get(publisher.id);
      if (report) report.isWanted = true;
      while (publishers[0]?.id !== undefined) forget(reports, publishers.shift()?.id);
      if (publishers.length === 0) {
        forget(reports);
        this.#lanes.delete(name);
      }
      return report ?? (position && this.#late(keys, position));
    };
  }

  /** To be called before the event is sent to anybody. */
  onAppended({ keys, seq }: Entry): void {
    const lane = this.#lanes.size > 0 && this.#lanes.get(nameOf(keys));
    if (!lane) return;
    const { publishers, reports } = lane;
    reports.set(this.#fanout.log.id(seq), new ReportTracker(seq, this.#fanout.connectionsOf(keys), this.#timeout));
    const [oldest] = reports.keys();
    if (reports.size > publishers.length + SPARE) forget(reports, oldest);
  }

  /** On an event that this process was not told of meanwhile: it was before, or is still to come. About those who do not have it yet. */
  #late(keys: readonly string[], { epoch, seq, repeated }: AppendResult): Pick<ReportTracker, "clients" | "done"> {
    const fanout = this.#fanout;
    const isHere = epoch === fanout.log.epoch;
    const report = new ReportTracker(isHere ? seq : Infinity, fanout.connectionsOf(keys), this.#timeout);
    // What was before the log began anew nobody is given any more.
    if (!isHere) report.settle(repeated ? "lost" : "late");
    return repeated ? { clients: fanout.countConnections(keys), done: report.done } : report;
  }
}

const nameOf = (keys: readonly string[]): string => keys.join("\n");

/** Drops reports that nobody will ask for any more: those up to a position, or all. */
function forget(reports: Map<string, ReportTracker>, through?: string): void {
  if (through !== undefined && !reports.has(through)) return;
  for (const [id, report] of reports) {
    reports.delete(id);
    if (!report.isWanted) report.settle("late");
    if (id === through) break;
  }
}
