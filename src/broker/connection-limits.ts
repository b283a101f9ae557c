// Enforces `maxClients`, `maxSubscriptions`, `maxClientsPerSubject`, `maxClientsPerId` and `duplicateIds`.
import { BrokerError } from "../base/errors.ts";
import type { ClientInfo, Connection } from "../delivery/connection.ts";
import { duplicateId } from "./known-clients.ts";
import type { Settings } from "./options.ts";

type Bounds = Pick<
  Settings,
  "duplicateIds" | "maxClients" | "maxClientsPerId" | "maxClientsPerSubject" | "maxSubscriptions"
>;
type Counted = Pick<ClientInfo, "channels" | "subject">;

export class ConnectionLimits {
  readonly #bounds: Bounds;
  /** Connections that are not closed yet. */
  #connections = 0;
  /** Channels of all of these connections. */
  #subscriptions = 0;
  /** Slots of connections that are not registered yet. */
  #reserved = 0;
  /** Connections per subject. */
  readonly #subjects = new Map<string, number>();

  constructor(bounds: Bounds) {
    this.#bounds = bounds;
  }

  /**
   * Reserves a slot for a connection that is being authorized. Returns a function that releases the slot (idempotent), or `undefined` if
   * `maxClients` is reached.
   */
  reserve(): (() => void) | undefined {
    if (this.#connections + this.#reserved >= this.#bounds.maxClients) return undefined;
    this.#reserved++;
    let isReserved = true;
    return () => {
      if (isReserved) this.#reserved--;
      isReserved = false;
    };
  }

  /**
   * Returns the connections that a new one replaces. `sharing` are the connections with the same client id. `since` (epoch milliseconds) is the
   * time of the first connect if the stream continues on another socket.
   *
   * @throws {@link BrokerError} `duplicate-id`, `at-capacity`
   */
  makeRoom(
    clientId: string,
    { channels, subject }: { channels: readonly string[]; subject?: string | undefined },
    sharing: ReadonlySet<Connection>,
    since: number = Infinity,
  ): readonly Connection[] {
    const { duplicateIds, maxClientsPerId, maxClientsPerSubject } = this.#bounds;
    const same = [...sharing].filter(({ info }) => info.subject === subject);
    // A stream that continues does not replace a connection that took its place in the meantime.
    const isTaken = duplicateIds === "replace" && same.some(({ info }) => info.connectedAt > since);
    if (isTaken || (duplicateIds === "reject" && same.length > 0)) throw duplicateId(clientId);
    this.checkSubscriptions(channels.length);
    const replaced = duplicateIds === "replace" ? same : [];
    if (sharing.size - replaced.length >= maxClientsPerId)
      throw new BrokerError(
        "at-capacity",
        `Connection refused: this client id has ${maxClientsPerId} connections (maxClientsPerId); try again later.`,
      );
    const ofSubject = subject === undefined ? 0 : (this.#subjects.get(subject) ?? 0);
    if (ofSubject - replaced.length >= maxClientsPerSubject)
      throw new BrokerError(
        "at-capacity",
        `Connection refused: this subject has ${maxClientsPerSubject} connections (maxClientsPerSubject); try again later.`,
      );
    return replaced;
  }

  /** @throws {@link BrokerError} `at-capacity` if open connections cannot read this many channels more */
  checkSubscriptions(added: number): void {
    const { maxSubscriptions } = this.#bounds;
    if (added > 0 && this.#subscriptions + added > maxSubscriptions)
      throw new BrokerError(
        "at-capacity",
        `Connection refused: all connections together read ${maxSubscriptions} channels (maxSubscriptions); try again later.`,
      );
  }

  /** Counts channels that an open connection reads more, or less. */
  change(added: number): void {
    this.#subscriptions += added;
  }

  /** Counts a registered connection. */
  add({ channels, subject }: Counted): void {
    this.#connections++;
    this.#subscriptions += channels.length;
    if (subject !== undefined) this.#subjects.set(subject, (this.#subjects.get(subject) ?? 0) + 1);
  }

  /** Counts a connection that has closed. */
  remove({ channels, subject }: Counted): void {
    this.#connections--;
    this.#subscriptions -= channels.length;
    if (subject === undefined) return;
    const count = (this.#subjects.get(subject) ?? 0) - 1;
    if (count > 0) this.#subjects.set(subject, count);
    else this.#subjects.delete(subject);
  }
}
