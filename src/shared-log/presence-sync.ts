// Registers the connections of this process in the store, and renews the registrations before their lease ends.
import { BrokerError } from "../base/errors.ts";
import { every, now } from "../base/runtime.ts";
import type { Presence, PresenceResult, PresenceStore, StreamAnswer, StreamRequest } from "../engine/engine.ts";
import type { SharedLogSession } from "./shared-log.ts";

type DuplicateRule = Parameters<PresenceStore["enter"]>[1];

/** A connection that waits to be registered. */
interface PendingRegistration {
  readonly presence: Presence;
  readonly resolve: (result: PresenceResult) => void;
  readonly reject: (error: unknown) => void;
}

/** The session that the connections belong to. */
interface PresenceHost {
  onError(error: unknown): void;
  /** Resolves when this process is in the feed. */
  joinFeed(): Promise<void>;
}

/** The connections of this process, as the other processes know them. Connections that come at the same time are registered together. */
export class PresenceSync implements PresenceStore {
  readonly #store: SharedLogSession;
  readonly #host: PresenceHost;
  /** Number of connections of each presence. */
  readonly #counts = new Map<Presence, number>();
  readonly #presences = new Map<string, Presence>();
  /** Client ids of closed connections that the store could not be informed of, each with the time until which it lingers. */
  readonly #unreportedLingers = new Map<string, number>();
  #queue: PendingRegistration[] = [];
  #isRegistering = false;
  readonly #stopRenewing: () => void;

  constructor(store: SharedLogSession, host: PresenceHost) {
    this.#store = store;
    this.#host = host;
    this.#stopRenewing = every(store.lease, () => void this.renew());
  }

  enter(presence: Presence, rule: DuplicateRule, lingerMs: number): Promise<PresenceResult> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ presence, resolve, reject });
      if (!this.#isRegistering) void this.#registerQueued(rule, lingerMs);
    });
  }

  leave(presence: Presence, lingerMs: number): void {
    this.#count(presence, -1);
    const until = now() + lingerMs;
    // The next renewal removes the connection in any case. Its lingering id must be reported once commands can be given.
    this.#store.leave(presence, lingerMs).catch(() => {
      if (lingerMs > 0) this.#unreportedLingers.set(presence.clientId, until);
    });
  }

  isBarred(clientId: string): Promise<boolean> {
    return this.#store.isBarred(clientId);
  }

  disconnect(clientId: string, barMs: number, reason?: string): Promise<number> {
    return this.#store.disconnect(clientId, barMs, reason);
  }

  async request(request: StreamRequest): Promise<readonly StreamAnswer[]> {
    if (!this.#store.request)
      throw new BrokerError("engine-refused", "Refused: this store cannot reach the streams of other processes.");
    await this.#host.joinFeed();
    return this.#store.request(request);
  }

  /** Registers all connections again. A registration that is not renewed expires, and the store may have lost some. */
  async renew(): Promise<void> {
    const unreported = [...this.#unreportedLingers];
    const time = now();
    try {
      // Before the renewal, which removes the closed connections.
      if (unreported.length > 0)
        await this.#store.linger(new Map(unreported.map(([id, until]) => [id, Math.max(0, until - time)])));
      for (const [id, until] of unreported)
        if (this.#unreportedLingers.get(id) === until) this.#unreportedLingers.delete(id);
      // Collected only now, so that the renewal does not remove connections that came in the meantime.
      const all: Presence[] = [];
      for (const [presence, count] of this.#counts) for (let n = 0; n < count; n++) all.push(presence);
      await this.#store.renew(all);
    } catch (error) {
      this.#host.onError(error);
      for (const [id, until] of unreported) if (until <= time) this.#unreportedLingers.delete(id);
    }
  }

  close(): void {
    this.#stopRenewing();
  }

  async #registerQueued(rule: DuplicateRule, lingerMs: number): Promise<void> {
    this.#isRegistering = true;
    // First all connections of this turn together, then those that came while they were registered.
    await undefined;
    while (this.#queue.length > 0) {
      const batch = this.#queue;
      this.#queue = [];
      // Counted before the store answers, so that a renewal that is under way does not remove them.
      for (const { presence } of batch) this.#count(presence, 1);
      try {
        const results = await this.#store.enter(
          batch.map(({ presence }) => presence),
          rule,
          lingerMs,
        );
        for (const [index, { presence, resolve }] of batch.entries()) {
          const result = results[index] ?? "barred";
          if (result === "barred" || result === "taken") this.#count(presence, -1);
          resolve(result);
        }
      } catch (error) {
        for (const { presence, reject } of batch) {
          // If the store did register the connection, the next renewal removes it. A `leave` could remove another connection of its id.
          this.#count(presence, -1);
          reject(error);
        }
      }
    }
    this.#isRegistering = false;
  }

  #count({ clientId, subject }: Presence, change: 1 | -1): void {
    const name = `${clientId}\n${subject ?? ""}`;
    const presence = this.#presences.get(name) ?? { clientId, subject };
    const count = (this.#counts.get(presence) ?? 0) + change;
    if (count > 0) {
      this.#presences.set(name, presence);
      this.#counts.set(presence, count);
    } else {
      this.#presences.delete(name);
      this.#counts.delete(presence);
    }
  }
}
