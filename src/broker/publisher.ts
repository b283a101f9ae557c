// Publishes events: checks, appends, counts, and holds a publisher that is too far ahead.

import { track } from "../base/track.ts";
import type { DeliveryReports, Published, PublishOptions, Reported, Sent } from "../delivery/delivery-report.ts";
import type { Fanout } from "../delivery/fanout.ts";
import type { AppendResult } from "../engine/engine.ts";
import { inboxKey } from "../event/channel-key.ts";
import { type EventInput, type EventRules, prepareEvent } from "../event/event.ts";
import { formatPosition } from "../event/position.ts";
import { refuseEphemeral } from "../log/transient.ts";
import type { KnownClients } from "./known-clients.ts";

export class Publisher {
  /** Events published through this broker. */
  published = 0;
  readonly #rules: EventRules;
  readonly #fanout: Fanout;
  readonly #reports: DeliveryReports;
  readonly #knownClients: KnownClients;
  /** Appends that the engine has not answered. */
  readonly #appends = new Set<Promise<unknown>>();

  constructor(rules: EventRules, fanout: Fanout, reports: DeliveryReports, knownClients: KnownClients) {
    this.#rules = rules;
    this.#fanout = fanout;
    this.#reports = reports;
    this.#knownClients = knownClients;
  }

  /**
   * Appends an event to the channels of `keys`. Resolves when the publisher may go on.
   *
   * @throws {@link BrokerError} `unknown-client` if the recipient is not connected and was not within `inboxLinger`, and what the engine
   * rejects with.
   */
  async publish(
    keys: readonly string[],
    event: EventInput,
    { report, idempotencyKey, recipient, subject, ephemeral, isBody }: PublishOptions = {},
  ): Promise<Sent | Published | Reported> {
    const fanout = this.#fanout;
    if (recipient !== undefined)
      this.#knownClients.check(recipient, fanout.channels.countConnections([inboxKey(recipient)]) > 0);
    const text = prepareEvent(event, this.#rules, isBody);
    if (ephemeral) return this.#sendEphemeral(keys, text);
    const answered = report ? this.#reports.expect(keys) : undefined;
    let position: AppendResult;
    try {
      const answer = fanout.session.append(keys, text, idempotencyKey, recipient, subject);
      position = "seq" in answer ? answer : await track(this.#appends, answer);
    } catch (error) {
      answered?.();
      throw error;
    }
    if (!position.repeated) this.published++;
    const tracker = answered?.(position);
    const id = formatPosition(position.epoch, position.seq);
    const published = { id, clients: tracker?.clients ?? fanout.channels.countConnections(keys) };
    const ready = fanout.ready();
    if (ready !== undefined) await ready;
    return tracker ? { ...published, report: tracker.done } : published;
  }

  /** Sends an event that is not stored. @throws {@link BrokerError} `engine-refused`, `engine-down` */
  async #sendEphemeral(keys: readonly string[], text: string): Promise<Sent> {
    const { session, channels } = this.#fanout;
    const clients = channels.countConnections(keys);
    const sending = (session.sendEphemeral ?? refuseEphemeral).call(session, keys, text);
    if (sending !== undefined) await sending;
    this.published++;
    const ready = this.#fanout.ready();
    if (ready !== undefined) await ready;
    return { clients };
  }

  /** Resolves when the engine has answered every append. */
  async allAnswered(): Promise<void> {
    await Promise.allSettled(this.#appends);
  }
}
