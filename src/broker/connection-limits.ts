import { BrokerError } from "../base/errors.ts";
import type { Connection } from "../delivery/stream-connection.ts";
import { duplicateId } from "./known-clients.ts";
import type { Settings } from "./options.ts";

type Bounds = Pick<Settings, "duplicateIds" | "maxClients" | "maxClientsPerId" | "maxClientsPerSubject">;

/** Who there is room for. */
export class ConnectionLimits {
  readonly #bounds: Bounds;
  /** Connections, in all. */
  readonly #connections: () => number;
  /** Places that are taken by those who are not registered yet. */
  #reserved = 0;
  /** How many connections a subject has. */
  readonly #subjects = new Map<string, number>();

  constructor(bounds: Bounds, connections: () => number) {
    this.#bounds = bounds;
    this.#connections = connections;
  }

  /** Takes a place among `maxClients`; the answer gives it back, once. `undefined` if none is left. */
  reserve(): (() => void) | undefined {
    if (this.#connections() + this.#reserved >= this.#bounds.maxClients) return undefined;
    this.#reserved++;
    let taken = true;
    return () => {
      if (taken) this.#reserved--;
      taken = false;
    };
  }

  /**
   * Which of those who have the same client id make room for a new one, or for one that has been there `since` then (epoch milliseconds).
   *
   * @throws {@link BrokerError} `duplicate-id`, `at-capacity`
   */
  makeRoom(
    clientId: string,
    subject: string | undefined,
    sharing: ReadonlySet<Connection>,
    since: number = Infinity,
  ): readonly Connection[] {
    const { duplicateIds, maxClientsPerId, maxClientsPerSubject } = this.#bounds;
    const same = [...sharing].filter(({ info }) => info.subject === subject);
    // One that comes back to its place does not take it from who has it since.
    const isTaken = duplicateIds === "replace" && same.some(({ info }) => info.connectedAt > since);
    if (isTaken || (duplicateIds === "reject" && same.length > 0)) throw duplicateId(clientId);
    const replaced = duplicateIds === "replace" ? same : [];
    if (sharing.size - replaced.length >= maxClientsPerId)
      throw new BrokerError("at-capacity", "Connection refused: there are too many of this client id.");
    const ofSubject = subject === undefined ? 0 : (this.#subjects.get(subject) ?? 0);
    if (ofSubject - replaced.length >= maxClientsPerSubject)
      throw new BrokerError("at-capacity", "Connection refused: there are too many of this subject.");
    return replaced;
  }

  /** Counts a connection of a subject, or one less. */
  count(subject: string | undefined, change: 1 | -1): void {
    if (subject === undefined) return;
    const count = (this.#subjects.get(subject) ?? 0) + change;
    if (count > 0) this.#subjects.set(subject, count);
    else this.#subjects.delete(subject);
  }
}
