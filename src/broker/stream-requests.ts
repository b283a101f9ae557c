// Carries out requests about open streams: which channels they read, and events for one of them.
import { BrokerError } from "../base/errors.ts";
import type { ClientInfo, Connection } from "../delivery/connection.ts";
import type { Fanout } from "../delivery/fanout.ts";
import type { StreamAnswer, StreamRequest, StreamTarget } from "../engine/engine.ts";
import { inboxKey, keysOf } from "../event/channel-key.ts";
import { type EventInput, prepareEvent } from "../event/event.ts";
import { encode, formatControl } from "../event/sse-format.ts";
import { MAX_WAITING } from "../log/weave.ts";
import { joinChannels, type Leaving, leaveChannels, NO_ANNOUNCEMENT } from "./channel-changes.ts";
import type { ConnectionLimits } from "./connection-limits.ts";
import type { Settings } from "./options.ts";

/** The connections of this process. */
export interface OpenStreams {
  readonly fanout: Fanout;
  readonly connections: ReadonlySet<Connection>;
  readonly bySecret: ReadonlyMap<string, Connection>;
}

/** The part of `fanwire-channels` about one change. */
interface Change {
  readonly added: readonly string[];
  readonly removed: readonly string[];
  readonly reason?: string | undefined;
}

export class StreamRequests {
  readonly #settings: Settings;
  readonly #registry: OpenStreams;
  readonly #limits: ConnectionLimits;
  /** Changes of a connection that the engine has not answered. A later one waits for them. */
  readonly #changes = new WeakMap<Connection, Promise<unknown>>();
  /** Channels that a connection has not left yet, of each request. */
  readonly #leaving = new WeakMap<Connection, Set<Leaving>>();

  constructor(settings: Settings, registry: OpenStreams, limits: ConnectionLimits) {
    this.#settings = settings;
    this.#registry = registry;
    this.#limits = limits;
  }

  /**
   * Carries out a request on the connections of this process. Returns a promise only if the engine needs one.
   *
   * @throws {@link BrokerError} `bad-channel`, `at-capacity`, `engine-down`; as {@link Log.checkChannels}
   */
  run(request: StreamRequest): StreamAnswer | Promise<StreamAnswer> {
    const connections = this.#find(request);
    for (const connection of connections) this.#checkRoom(connection);
    if (request.type === "send") {
      for (const connection of connections) this.#insert(connection, request.text);
      return { clients: connections.length };
    }
    const { channels } = request;
    if (request.type === "subscribe") this.#checkBounds(connections, channels);
    const changed = connections.map((connection) =>
      this.#inTurn(connection, () =>
        request.type === "subscribe"
          ? this.#subscribe(connection, channels)
          : this.#settle(() => this.#unsubscribe(connection, channels, request.reason)),
      ),
    );
    const waiting = changed.filter((each) => each !== undefined);
    return waiting.length > 0 ? Promise.all(waiting).then(() => this.#answer(connections)) : this.#answer(connections);
  }

  /** Sends an event to one connection. Does nothing if it has ended. @throws as a publish; {@link BrokerError} `at-capacity` */
  send(connection: Connection, event: EventInput): void {
    const text = prepareEvent(event, this.#settings);
    if (!this.#registry.connections.has(connection)) return;
    this.#checkRoom(connection);
    this.#insert(connection, text);
  }

  #answer(connections: readonly Connection[]): StreamAnswer {
    const { epoch, head: seq } = this.#registry.fanout.log;
    return { clients: connections.length, position: { epoch, seq } };
  }

  #find({ clientId, connectionId, secret, subject }: StreamTarget): Connection[] {
    const { fanout, connections, bySecret } = this.#registry;
    const found =
      secret === undefined
        ? [...fanout.channels.connectionsOf([inboxKey(clientId ?? "")])]
        : [bySecret.get(secret) ?? []].flat();
    return found.filter(
      (connection) =>
        connections.has(connection) &&
        (connectionId === undefined || connection.connectionId === connectionId) &&
        (secret === undefined || connection.info.subject === subject),
    );
  }

  #checkRoom({ waiting }: Connection): void {
    if (waiting && waiting.length >= MAX_WAITING && waiting.every(({ expiresAt }) => expiresAt === undefined))
      throw new BrokerError(
        "at-capacity",
        `Refused: ${MAX_WAITING} items wait for this connection already; try again when it reads.`,
      );
  }

  /** Checks before anything changes, so that a request has its effect on all connections or on none. */
  #checkBounds(connections: readonly Connection[], channels: readonly string[]): void {
    const { maxChannelsPerClient } = this.#settings;
    if (connections.length > 0) this.#registry.fanout.log.checkChannels(keysOf(channels));
    let added = 0;
    for (const { info } of connections) {
      const all = new Set([...info.channels, ...channels]).size;
      added += all - info.channels.length;
      if (all > maxChannelsPerClient)
        throw new BrokerError(
          "bad-channel",
          `Subscription refused: the stream would read ${all} channels, and ${maxChannelsPerClient} are allowed (maxChannelsPerClient).`,
        );
    }
    this.#limits.checkSubscriptions(added);
  }

  /** Runs a change after those of the same connection that are under way. */
  #inTurn(connection: Connection, change: () => Promise<void> | undefined): Promise<unknown> | undefined {
    const earlier = this.#changes.get(connection);
    const changing = earlier === undefined ? change() : earlier.then(change, change);
    if (changing === undefined) return undefined;
    this.#changes.set(connection, changing);
    const forget = (): void => {
      if (this.#changes.get(connection) === changing) this.#changes.delete(connection);
    };
    void changing.then(forget, forget);
    return changing;
  }

  #subscribe(connection: Connection, channels: readonly string[]): Promise<void> | undefined {
    const { session } = this.#registry.fanout;
    const added = channels.filter((name) => !connection.info.channels.includes(name));
    if (added.length === 0) return undefined;
    const keys = keysOf(added).filter((key) => !this.#returns(connection, key));
    const join = (): void => {
      const { info } = connection;
      if (!this.#registry.connections.has(connection)) {
        session.unsubscribe?.(keys);
        return;
      }
      const announcement = this.#change(connection, [...info.channels, ...added], { added, removed: [] });
      const { snapshots } = connection;
      const sendSnapshot = (): void => {
        if (this.#registry.connections.has(connection)) snapshots?.join(added);
      };
      // Later in this turn, when the connection's position is behind what it has received.
      const onJoined = snapshots && (() => queueMicrotask(sendSnapshot));
      joinChannels(this.#registry.fanout, connection, keys, announcement, onJoined);
    };
    const subscribed = keys.length > 0 ? session.subscribe?.(keys) : undefined;
    // At once if nothing has to be waited for: an event that is published right after this is for this connection too.
    if (subscribed !== undefined) return subscribed.then(join);
    join();
    return undefined;
  }

  /** Whether a connection has not left a channel yet that it joins again. It then stays, and does not read what is published in between. */
  #returns(connection: Connection, key: string): boolean {
    const leaving = [...(this.#leaving.get(connection) ?? [])].findLast((others) => others.has(key));
    leaving?.set(key, this.#registry.fanout.log.head);
    return leaving !== undefined;
  }

  /** Makes a change behind everything that was published before it, also in other processes. */
  #settle(change: () => void): Promise<void> | undefined {
    const settled = this.#registry.fanout.session.settle?.();
    if (settled !== undefined) return settled.then(change);
    change();
    return undefined;
  }

  #unsubscribe(connection: Connection, channels: readonly string[], reason: string | undefined): void {
    const { info } = connection;
    const { fanout, connections } = this.#registry;
    const removed = info.channels.filter((name) => channels.includes(name));
    if (removed.length === 0 || !connections.has(connection)) return;
    const rest = info.channels.filter((name) => !removed.includes(name));
    const announcement = this.#change(connection, rest, { added: [], removed, reason });
    const all = this.#leaving.get(connection) ?? new Set();
    const leaving: Leaving = new Map(keysOf(removed).map((key) => [key, undefined]));
    this.#leaving.set(connection, all.add(leaving));
    leaveChannels(fanout, connection, leaving, announcement, (keys) => {
      all.delete(leaving);
      fanout.session.unsubscribe?.(keys);
    });
  }

  /** Gives a connection other channels in its `info`. Returns the announcement for its client. */
  #change(connection: Connection, channels: readonly string[], change: Change): Uint8Array<ArrayBuffer> {
    this.#limits.change(channels.length - connection.info.channels.length);
    connection.info = Object.freeze({ ...connection.info, channels: Object.freeze(channels) });
    connection.onChannelsChanged?.();
    return this.#announcement(connection.info, change);
  }

  /** Announces the channels of a stream again: the announcement of a change may have been lost with a socket inside the system. */
  announceAgain(connection: Connection): void {
    const { fanout } = this.#registry;
    const bytes = this.#announcement(connection.info, { added: [], removed: [] });
    fanout.insert(connection, { isTransient: true, bytes, seq: connection.cursor, keys: [] });
  }

  #announcement({ channels }: ClientInfo, change: Change): Uint8Array<ArrayBuffer> {
    return this.#settings.announce ? encode(formatControl("channels", { channels, ...change })) : NO_ANNOUNCEMENT;
  }

  #insert(connection: Connection, text: string): void {
    const { fanout } = this.#registry;
    const keys = [inboxKey(connection.id)];
    fanout.insert(connection, { isTransient: true, bytes: encode(text), seq: fanout.log.head, keys });
  }
}
