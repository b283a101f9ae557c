// Client ids beyond the open connections: barred ids, and ids that still accept events for a while. Processes that share a log share them.
import { BrokerError, quote } from "../base/errors.ts";
import { ExpiringMap } from "../base/expiring-map.ts";
import { now } from "../base/runtime.ts";
import type { EngineSession, Presence, PresenceResult, PresenceStore } from "../engine/engine.ts";
import type { Settings } from "./options.ts";

export class KnownClients {
  readonly #barred = new ExpiringMap();
  /** Ids whose last connection ended less than `inboxLinger` ago. */
  readonly #lingering = new ExpiringMap();
  readonly #settings: Pick<Settings, "duplicateIds" | "inboxLinger">;
  readonly #shared: PresenceStore | undefined;
  #expectedUntil = -Infinity;

  constructor(settings: Pick<Settings, "duplicateIds" | "inboxLinger">, session: EngineSession) {
    this.#settings = settings;
    this.#shared = session.presence;
    session.persistNames?.("barred", this.#barred);
    session.persistNames?.("lingering", this.#lingering);
    if (session.expectsReturns) this.expectReturns(settings.inboxLinger);
  }

  /** Whether this process knows that an id is barred. */
  isBarred(clientId: string): boolean {
    return this.#barred.has(clientId);
  }

  /** Whether an id is barred in any process. */
  isBarredAnywhere(clientId: string): boolean | Promise<boolean> {
    return this.isBarred(clientId) || (this.#shared?.isBarred(clientId) ?? false);
  }

  bar(clientId: string, ms: number): void {
    if (ms > 0) this.#barred.set(clientId, ms, true);
  }

  /** Bars an id in the other processes and ends its connections there. Returns how many those were. */
  disconnect(clientId: string, barFor: number, reason?: string): number | Promise<number> {
    return this.#shared?.disconnect(clientId, barFor, reason) ?? 0;
  }

  /**
   * Registers a connection in all processes. Returns `undefined` where there is only one process.
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

  /** Takes back a registration: the connection was refused after it had entered. */
  revoke(presence: Presence): void {
    this.#shared?.leave(presence, 0);
  }

  /** A connection is no longer registered. Its id accepts events for `inboxLinger`. */
  removed(presence: Presence): void {
    this.#lingering.set(presence.clientId, this.#settings.inboxLinger, true, presence.subject);
    this.#shared?.leave(presence, this.#settings.inboxLinger);
  }

  /** Clients of a previous instance, whose ids are not known, are about to come back: for `ms` milliseconds every id counts as known. */
  expectReturns(ms: number): void {
    this.#expectedUntil = now() + ms;
  }

  /** Milliseconds for which every id still counts as known; 0 or less afterwards. */
  get expectedFor(): number {
    return this.#expectedUntil - now();
  }

  /** @throws {@link BrokerError} `unknown-client`, if this process knows all clients; with several processes the engine checks. */
  check(clientId: string, isConnected: boolean): void {
    if (this.#shared || isConnected || this.#lingering.has(clientId) || this.expectedFor > 0) return;
    throw new BrokerError("unknown-client", `Event refused: no client ${quote(clientId)} is connected, or was lately.`);
  }

  clear(): void {
    this.#barred.clear();
    this.#lingering.clear();
  }
}

export const duplicateId = (id: string): BrokerError =>
  new BrokerError(
    "duplicate-id",
    `Connection refused: the client id ${quote(id)} is connected already (duplicateIds).`,
  );
