import type { DisconnectReason, Member } from "./client.ts";
import { type Batch, holdsEvent } from "./reader.ts";
import { after } from "./runtime.ts";

/** What became of an event when it was published. */
export interface Published {
  /** Its position, as clients see it. */
  readonly id: string;
  /** Clients of this process that it is for, at the time of the append. */
  readonly clients: number;
}

/** How to publish. */
export interface PublishOptions {
  readonly report?: boolean | undefined;
  /** What is published again with the same one is not published twice. */
  readonly nonce?: string | undefined;
  /** The client id that it is for, if it is for one. */
  readonly recipient?: string | undefined;
}

/** The answer to `{ report: true }`. */
export interface Reported extends Published {
  /** Settles within `timeout`, never rejects. */
  readonly report: Promise<DeliveryReport>;
}

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
  readonly #waiting: Set<Member>;
  readonly #failed: Failure[] = [];
  #handed = 0;
  #resolve!: (report: DeliveryReport) => void;
  #cancel: (() => void) | undefined;

  constructor(seq: number, recipients: Set<Member>, timeout: number) {
    this.#seq = seq;
    this.#waiting = recipients;
    this.done = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    for (const client of recipients) {
      if (client.cursor < seq) (client.reports ??= new Set()).add(this);
      else this.#has(client);
    }
    this.#cancel = after(timeout, () => this.settle("late"), true);
    this.#settleIfDone();
  }

  /** A client was handed a batch; whether that settles this event for it. */
  handed(client: Member, batch: Batch): boolean {
    if (batch.through < this.#seq) return false;
    if (holdsEvent(batch, this.#seq)) {
      this.#has(client);
      this.#settleIfDone();
    } else {
      this.failed(client, "lost");
    }
    return true;
  }

  failed(client: Member, reason: FailureReason): void {
    this.#failed.push({ clientId: client.id, connectionId: client.connectionId, reason });
    this.#forget(client);
    this.#settleIfDone();
  }

  /** Gives up on all who are still waited for. */
  settle(reason: FailureReason): void {
    for (const client of this.#waiting) this.failed(client, reason);
  }

  #has(client: Member): void {
    this.#handed++;
    this.#forget(client);
  }

  #forget(client: Member): void {
    this.#waiting.delete(client);
    client.reports?.delete(this);
  }

  #settleIfDone(): void {
    if (this.#waiting.size > 0) return;
    this.#cancel?.();
    this.#resolve({ handed: this.#handed, failed: this.#failed });
  }
}
