import { BrokerError, quote } from "../base/errors.ts";
import { ExpiringMap } from "../base/expiring-map.ts";
import { now } from "../base/runtime.ts";
import type { EngineSession, PresenceStore } from "../engine/engine.ts";
import type { Presence, PresenceResult } from "../shared-log/shared-log.ts";
import type { Settings } from "./options.ts";

/** Which client ids there are, were not long ago, and are turned away. Where several processes share a log, they share this as well. */
export class KnownClients {
  /** Ids that are turned away. */
  readonly #barred = new ExpiringMap();
  /** Ids that had a client not long ago. */
  readonly #lingering = new ExpiringMap();
  readonly #settings: Pick<Settings, "duplicateIds" | "inboxLinger">;
  #shared: PresenceStore | undefined;
  #expectedUntil = -Infinity;

  constructor(settings: Pick<Settings, "duplicateIds" | "inboxLinger">) {
    this.#settings = settings;
  }

  open(session: EngineSession): void {
    session.persistNames?.("barred", this.#barred);
    session.persistNames?.("lingering", this.#lingering);
    this.#shared = session.presence;
  }

  /** Whether this process knows that an id is turned away. */
  isBarred(clientId: string): boolean {
    return this.#barred.has(clientId);
  }

  /** Whether any process does. */
  isBarredAnywhere(clientId: string): boolean | Promise<boolean> {
    return this.isBarred(clientId) || (this.#shared?.isBarred(clientId) ?? false);
  }

  bar(clientId: string, ms: number): void {
    if (ms > 0) this.#barred.set(clientId, ms, true);
  }

  /** Has the other processes do the same as this one; how many connections they have. */
  disconnect(clientId: string, barFor: number): number | Promise<number> {
    return this.#shared?.disconnect(clientId, barFor) ?? 0;
  }

  /**
   * Makes a connection known to all processes; whether it may come in.
   *
   * @throws {@link BrokerError} `duplicate-id`
   */
  enter(presence: Presence): Promise<Exclude<PresenceResult, "taken">> | undefined {
    const { duplicateIds, inboxLinger } = this.#settings;
    return this.#shared?.enter(presence, duplicateIds, inboxLinger).then((entered) => {
      if (entered !== "taken") return entered;
      throw duplicateId(presence.clientId);
    });
  }

  /** One that had entered did not come in after all. */
  revoke(presence: Presence): void {
    this.#shared?.leave(presence, 0);
  }

  removed(presence: Presence): void {
    this.#lingering.set(presence.clientId, this.#settings.inboxLinger, true, presence.subject);
    this.#shared?.leave(presence, this.#settings.inboxLinger);
  }

  /** Clients of before, nobody knows which, are about to come back: for so many milliseconds every one is taken to exist. */
  expectReturns(ms: number): void {
    this.#expectedUntil = now() + ms;
  }

  /** Milliseconds that this holds on. */
  get expectedFor(): number {
    return this.#expectedUntil - now();
  }

  /** @throws {@link BrokerError} `unknown-client`, if that can be told here. */
  check(clientId: string, isConnected: boolean): void {
    if (this.#shared || isConnected || this.#lingering.has(clientId) || this.expectedFor > 0) return;
    throw unknownClient(clientId);
  }

  clear(): void {
    this.#barred.clear();
    this.#lingering.clear();
  }
}

const unknownClient = (id: string): BrokerError =>
  new BrokerError("unknown-client", `Event refused: there is no client ${quote(id)}.`);

export const duplicateId = (id: string): BrokerError =>
  new BrokerError("duplicate-id", `Connection refused: there is a client ${quote(id)} already.`);
