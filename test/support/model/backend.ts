// The engine that the processes of a simulated history share, and the disturbances of it.
import type { Engine, MemoryEngineOptions } from "../../../src/index.ts";
import { parseLostNotice } from "../../../src/shared-log/lost-notice.ts";
import { sharedLogEngine } from "../../../src/shared-log/shared-log-engine.ts";
import type { Clock } from "../clock.ts";
import type { MemorySession } from "../engines/memory-session.ts";
import { type AppendedEvent, MemorySharedLog } from "../engines/memory-shared-log.ts";
import type { PublishedEvent } from "../oracle/oracle.ts";
import type { TestSetup } from "../test-broker.ts";
import {
  CHANNEL_NAMES,
  type Disturbance,
  EVENT_COST_BYTES,
  type HistoryKind,
  type HistorySettings,
} from "./history.ts";
import { inboxName } from "./items.ts";
import { type AppendOutcome, type EngineConnection, LateEngine } from "./late-engine.ts";

/** More positions than an epoch has. */
const RANKS_PER_EPOCH = 1_000_000;

export abstract class Backend {
  /** Every event that was appended, in order. */
  abstract readonly appended: readonly AppendedEvent[];
  /** The outcome of each append, in the order of the calls. A shared log does not record them. */
  abstract readonly outcomes: readonly AppendOutcome[];
  /** All epochs, in order. */
  abstract readonly epochs: readonly string[];
  /** Returns the engine of a process. */
  abstract engine(process: number): Engine;
  /** Has events take effect that were appended in this turn, where an engine gathers them. */
  settle(): void {
    // Most do not.
  }
  abstract disturb(disturbance: Disturbance): void;
  /** Ends every disturbance. */
  abstract restore(): void;
  /** Describes everything that is left after all brokers have closed, and should not be. */
  abstract leftovers(): string[];

  /** Returns the rank of an id: its place in the order of all events of all epochs. */
  rankOf(id: string): number {
    const end = id.lastIndexOf("-");
    const epoch = this.epochs.indexOf(id.slice(0, end)) + 1;
    if (epoch === 0) throw new Error(`Ranking the id "${id}": its epoch never existed.`);
    return epoch * RANKS_PER_EPOCH + Number(id.slice(end + 1));
  }

  /** The rank of the newest event, or of the beginning of the newest epoch. */
  get head(): number {
    const last = this.appended.at(-1);
    return Math.max(this.baseRank, last ? this.rankOf(`${last.epoch}-${last.seq}`) : 0);
  }

  /** The rank before every event of the newest epoch. */
  get baseRank(): number {
    return this.epochs.length * RANKS_PER_EPOCH;
  }

  /** Returns every event that somebody published in the form that the oracle needs, with its rank as `seq`. */
  published(): PublishedEvent[] {
    const events = this.appended.filter(({ epoch, text }) => !parseLostNotice(text, epoch));
    return events.map(({ epoch, seq, keys, text, at }) => ({
      seq: this.rankOf(`${epoch}-${seq}`),
      channels: keys.map(publicName),
      data: /^data: (.*)$/m.exec(text)?.[1] ?? "",
      bytes: `id: ${epoch}-${seq}\n${text}`.length,
      cost: EVENT_COST_BYTES + 256 * (keys.length - 1) + text.length,
      at,
    }));
  }
}

/** Returns the public name of a channel key. An inbox has the name that names its client as well. */
const publicName = (key: string): string =>
  key === "" ? "fanwire-common" : key.startsWith("@") ? inboxName(key.slice(1)) : key.slice(1);

/** A log in memory that the brokers of one process share. */
class MemoryBackend extends Backend {
  readonly #engine: LateEngine;
  /** For each process, the index of its session. */
  readonly #sessions: number[] = [];

  constructor(
    setup: TestSetup,
    { events, eventsOfB, bytes, age, logBytes, maxChannels, idempotencyWindow }: HistorySettings,
    clock: Clock,
  ) {
    super();
    const options: MemoryEngineOptions = {
      retention: { events, bytes, age },
      channels: (name) => (name === "b" ? { retention: { events: eventsOfB } } : undefined),
      logBytes,
      maxChannels,
      idempotencyWindow,
    };
    this.#engine = new LateEngine(setup.engine(options), clock);
  }

  get appended(): readonly AppendedEvent[] {
    return this.#engine.appended;
  }

  get outcomes(): readonly AppendOutcome[] {
    return this.#engine.outcomes;
  }

  get epochs(): readonly string[] {
    const { log } = this.#engine;
    return log ? [log.epoch] : [];
  }

  engine(process: number): Engine {
    return {
      open: (listener) => {
        this.#sessions[process] = this.#engine.connections.length;
        return this.#engine.open(listener);
      },
    };
  }

  disturb(disturbance: Disturbance): void {
    const connection = this.#engine.connections[this.#sessions[disturbance.process] ?? -1];
    if (connection) disturbConnection(connection, disturbance);
  }

  override settle(): void {
    this.#engine.settle();
  }

  restore(): void {
    for (const connection of this.#engine.connections) restoreConnection(connection);
  }

  leftovers(): string[] {
    const { log } = this.#engine;
    if (!log) return [];
    const keys = [
      "",
      ...["one", "two", ...[0, 1, 2, 3]].map((id) => `@${id}`),
      ...CHANNEL_NAMES.map((name) => `#${name}`),
    ];
    const pinned = keys.filter((key) => (log.find(key)?.pins ?? 0) > 0);
    return [
      ...(log.listeners.size > 0 ? [`${log.listeners.size} brokers still listen to the log`] : []),
      ...pinned.map((key) => `the channel "${key}" is still pinned`),
    ];
  }
}

/** A log in a store that the processes share, over connections that fail. */
class SharedLogBackend extends Backend {
  readonly outcomes: readonly AppendOutcome[] = [];
  readonly #store: MemorySharedLog;
  readonly #sessions: MemorySession[] = [];
  readonly #logBytes: number;

  constructor({ events, pageSize, logBytes }: HistorySettings, clock: Clock) {
    super();
    this.#store = new MemorySharedLog({ retention: events, pageSize, clock });
    this.#logBytes = logBytes;
  }

  get appended(): readonly AppendedEvent[] {
    return this.#store.appended;
  }

  get epochs(): readonly string[] {
    return this.#store.epochs;
  }

  engine(process: number): Engine {
    const sharedLog = {
      open: (listener: Parameters<MemorySharedLog["open"]>[0]) => {
        const session = this.#store.open(listener);
        this.#sessions[process] = session;
        return session;
      },
    };
    return sharedLogEngine(sharedLog, { logBytes: this.#logBytes, retention: { age: Infinity } });
  }

  disturb(disturbance: Disturbance): void {
    const session = this.#sessions[disturbance.process];
    if (!session) return;
    switch (disturbance.do) {
      case "feed":
        session.setFeed(disturbance.isConnected);
        break;
      case "commands":
        session.setCommands(disturbance.isConnected);
        break;
      case "lose-messages":
        if (session.messagesToSwallow !== Infinity) session.messagesToSwallow = disturbance.messages;
        break;
      case "silence":
        session.messagesToSwallow = Infinity;
        break;
      case "new-epoch":
        this.#store.startNewEpoch();
        break;
      case "lose-log":
        this.#store.loseLog();
        break;
      default:
        disturbConnection(session, disturbance);
    }
  }

  restore(): void {
    for (const session of this.#store.sessions) {
      restoreConnection(session);
      session.setCommands(true);
      session.setFeed(true);
      if (session.messagesToSwallow < Infinity) session.messagesToSwallow = 0;
    }
  }

  leftovers(): string[] {
    const open = this.#store.sessions.filter(({ isClosed }) => !isClosed);
    return open.length > 0 ? [`${open.length} sessions of the store are still open`] : [];
  }
}

export const createBackend = (setup: TestSetup, kind: HistoryKind, settings: HistorySettings, clock: Clock): Backend =>
  kind.sharedLog ? new SharedLogBackend(settings, clock) : new MemoryBackend(setup, settings, clock);

function disturbConnection(connection: EngineConnection, disturbance: Disturbance): void {
  if (disturbance.do === "delay") connection.delay(disturbance);
  else if (disturbance.do === "refuse") connection.commandsToRefuse = disturbance.times;
  else if (disturbance.do === "lose-reply") connection.losesNextReply = true;
}

function restoreConnection(connection: EngineConnection): void {
  connection.delay();
  connection.commandsToRefuse = 0;
  connection.losesNextReply = false;
}
