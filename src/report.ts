import type { Client, DisconnectReason } from "./client.ts";
import { type Batch, isGap } from "./reader.ts";
import { after } from "./runtime.ts";

/** Why an event did not reach a client: how it ended, `"late"` (it may still come from the log) or `"lost"` (a gap was told). */
export type FailureReason = DisconnectReason | "late" | "lost";

/** A client that an event was not handed to. */
export interface Failure {
  readonly clientId: string;
  readonly connectionId: string;
  readonly reason: FailureReason;
}

/** What became of an event at those who were connected to this process when it was appended. */
export interface DeliveryReport {
  /** How many clients it was handed to: given to the runtime, not received. */
  readonly handed: number;
  readonly failed: readonly Failure[];
}

/** Watches one event until each of its recipients has it or has failed. */
export class Report {
  readonly done: Promise<DeliveryReport>;
  readonly #seq: number;
  readonly #waiting: Set<Client>;
  readonly #failed: Failure[] = [];
  #handed = 0;
  #resolve!: (report: DeliveryReport) => void;
  #cancel: (() => void) | undefined;

  constructor(seq: number, recipients: Set<Client>, timeout: number) {
    this.#seq = seq;
    this.#waiting = recipients;
    this.done = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    for (const client of recipients) (client.reports ??= new Set()).add(this);
    this.#cancel = after(timeout, () => this.settle("late"), true);
    this.#settleIfDone();
  }

  /** A client was handed a batch. */
  handed(client: Client, batch: Batch): void {
    if (batch.through < this.#seq) return;
    if (batch.items.some((item) => !isGap(item) && item.seq === this.#seq)) {
      this.#handed++;
      this.#forget(client);
      this.#settleIfDone();
    } else {
      this.failed(client, "lost");
    }
  }

  failed(client: Client, reason: FailureReason): void {
    this.#failed.push({ clientId: client.id, connectionId: client.connectionId, reason });
    this.#forget(client);
    this.#settleIfDone();
  }

  /** Gives up on all who are still waited for. */
  settle(reason: FailureReason): void {
    for (const client of this.#waiting) this.failed(client, reason);
  }

  #forget(client: Client): void {
    this.#waiting.delete(client);
    client.reports?.delete(this);
  }

  #settleIfDone(): void {
    if (this.#waiting.size > 0) return;
    this.#cancel?.();
    this.#resolve({ handed: this.#handed, failed: this.#failed });
  }
}
