import { every, now } from "../base/runtime.ts";
import type { Presence, PresenceResult, PresenceStore } from "../engine/engine.ts";
import type { SharedLogSession } from "./shared-log.ts";

type Rule = Parameters<PresenceStore["enter"]>[1];

/** Who wants to enter, and is told whether it did. */
interface Entrance {
  readonly presence: Presence;
  readonly resolve: (entered: PresenceResult) => void;
  readonly reject: (error: unknown) => void;
}

/** The clients of this process, as the others know them. Those who come at the same time are entered together. */
export class PresenceSync implements PresenceStore {
  readonly #remote: SharedLogSession;
  readonly #failed: (error: unknown) => void;
  readonly #present = new Map<Presence, number>();
  readonly #keys = new Map<string, Presence>();
  /** Ids of connections that are over, which the store could not be told, and until when they linger. */
  readonly #unsaid = new Map<string, number>();
  #entering: Entrance[] = [];
  #isEntering = false;
  readonly #stop: () => void;

  constructor(remote: SharedLogSession, failed: (error: unknown) => void) {
    this.#remote = remote;
    this.#failed = failed;
    this.#stop = every(remote.lease, () => void this.renew());
  }

  enter(presence: Presence, rule: Rule, linger: number): Promise<PresenceResult> {
    return new Promise((resolve, reject) => {
      this.#entering.push({ presence, resolve, reject });
      if (!this.#isEntering) void this.#enter(rule, linger);
    });
  }

  leave(presence: Presence, linger: number): void {
    this.#count(presence, -1);
    const until = now() + linger;
    // A renewal takes it out in any case; that it lingers has to be said once commands can be given.
    this.#remote.leave(presence, linger).catch(() => {
      if (linger > 0) this.#unsaid.set(presence.clientId, until);
    });
  }

  isBarred(clientId: string): Promise<boolean> {
    return this.#remote.isBarred(clientId);
  }

  disconnect(clientId: string, barFor: number): Promise<number> {
    return this.#remote.disconnect(clientId, barFor);
  }

  /** Says again who is here: what is not said again is taken for dead, and what a store has lost it is told so. */
  async renew(): Promise<void> {
    const unsaid = [...this.#unsaid];
    const time = now();
    try {
      // Before the renewal, which takes them out.
      if (unsaid.length > 0)
        await this.#remote.linger(new Map(unsaid.map(([id, until]) => [id, Math.max(0, until - time)])));
      for (const [id, until] of unsaid) if (this.#unsaid.get(id) === until) this.#unsaid.delete(id);
      // Those who are here now: who came meanwhile must not be taken out.
      const all: Presence[] = [];
      for (const [presence, count] of this.#present) for (let n = 0; n < count; n++) all.push(presence);
      await this.#remote.renew(all);
    } catch (error) {
      this.#failed(error);
      for (const [id, until] of unsaid) if (until <= time) this.#unsaid.delete(id);
    }
  }

  close(): void {
    this.#stop();
  }

  async #enter(rule: Rule, linger: number): Promise<void> {
    this.#isEntering = true;
    // Those of this turn together, and then those who came while they were entered.
    await undefined;
    while (this.#entering.length > 0) {
      const some = this.#entering;
      this.#entering = [];
      // Before it is said, so that a renewal on its way does not take them out again.
      for (const { presence } of some) this.#count(presence, 1);
      try {
        const answers = await this.#remote.enter(
          some.map(({ presence }) => presence),
          rule,
          linger,
        );
        for (const [index, { presence, resolve }] of some.entries()) {
          const answer = answers[index] ?? "barred";
          if (answer === "barred" || answer === "taken") this.#count(presence, -1);
          resolve(answer);
        }
      } catch (error) {
        for (const { presence, reject } of some) {
          // If it was entered after all, the next renewal takes it out; a leave could take another connection of its id instead.
          this.#count(presence, -1);
          reject(error);
        }
      }
    }
    this.#isEntering = false;
  }

  #count({ clientId, subject }: Presence, change: 1 | -1): void {
    const key = `${clientId}\n${subject ?? ""}`;
    const presence = this.#keys.get(key) ?? { clientId, subject };
    const count = (this.#present.get(presence) ?? 0) + change;
    if (count > 0) {
      this.#keys.set(key, presence);
      this.#present.set(presence, count);
    } else {
      this.#keys.delete(key);
      this.#present.delete(presence);
    }
  }
}
