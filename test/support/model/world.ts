import type { Engine, MemoryEngineOptions } from "../../../src/index.ts";
import { sharedLogEngine } from "../../../src/shared-log/shared-log-engine.ts";
import type { Clock } from "../clock.ts";
import type { MemorySession } from "../engines/memory-session.ts";
import { type Appending, MemoryStore } from "../engines/memory-shared-log.ts";
import type { Told } from "../oracle/oracle.ts";
import type { Scene } from "../test-broker.ts";
import { COST, type Kinds, NAMES, type Setting, type Trouble } from "./history.ts";
import { inboxName } from "./items.ts";
import { type Asked, LateEngine, type Line } from "./late-engine.ts";

/** Positions of an epoch, at the most. */
const EPOCH = 1_000_000;

/** What the processes have in common, and what happens to what each has of it. */
export abstract class World {
  /** Everything that was ever appended, in order. */
  abstract readonly appended: readonly Appending[];
  /** What publishers asked the engine for, in the order of their calls; nothing of a store. */
  abstract readonly asked: readonly Asked[];
  /** The epochs that there were, in order. */
  abstract readonly epochs: readonly string[];
  abstract engine(process: number): Engine;
  abstract befall(trouble: Trouble): void;
  /** All is well again. */
  abstract heal(): void;
  /** What is left when all brokers have closed, and should not be. */
  abstract leftovers(): string[];

  /** Where an id is in the order of all that was published. */
  place(id: string): number {
    const end = id.lastIndexOf("-");
    const epoch = this.epochs.indexOf(id.slice(0, end)) + 1;
    if (epoch === 0) throw new Error(`reading an id: "${id}" is of no log that there was`);
    return epoch * EPOCH + Number(id.slice(end + 1));
  }

  /** The place of the newest event of all, or of the beginning of the newest log. */
  get head(): number {
    const last = this.appended.at(-1);
    return Math.max(this.base, last ? this.place(`${last.epoch}-${last.seq}`) : 0);
  }

  /** What is before the newest log. */
  get base(): number {
    return this.epochs.length * EPOCH;
  }

  told(): Told[] {
    return this.appended.map(({ epoch, seq, keys, text, at }) => ({
      seq: this.place(`${epoch}-${seq}`),
      channels: keys.map(nameOf),
      data: /^data: (.*)$/m.exec(text)?.[1] ?? "",
      bytes: `id: ${epoch}-${seq}\n${text}`.length,
      cost: COST + text.length,
      at,
    }));
  }
}

/** A key as the reader of an inbox is told it, and nobody else is. */
const nameOf = (key: string): string =>
  key === "" ? "fanwire-common" : key.startsWith("@") ? inboxName(key.slice(1)) : key.slice(1);

/** Processes that share a log in memory, as brokers of one process do. */
class MemoryWorld extends World {
  readonly #engine: LateEngine;
  /** Of each process, the number of its session. */
  readonly #sessions: number[] = [];

  constructor(stage: Scene, { events, bytes, age, logBytes, maxChannels, idempotencyWindow }: Setting, clock: Clock) {
    super();
    const options: MemoryEngineOptions = {
      retention: { events, bytes, age },
      logBytes,
      maxChannels,
      idempotencyWindow,
    };
    this.#engine = new LateEngine(stage.engine(options), clock);
  }

  get appended(): readonly Appending[] {
    return this.#engine.appended;
  }

  get asked(): readonly Asked[] {
    return this.#engine.asked;
  }

  get epochs(): readonly string[] {
    const { log } = this.#engine;
    return log ? [log.epoch] : [];
  }

  engine(process: number): Engine {
    return {
      open: (follower) => {
        this.#sessions[process] = this.#engine.lines.length;
        return this.#engine.open(follower);
      },
    };
  }

  befall(trouble: Trouble): void {
    const line = this.#engine.lines[this.#sessions[trouble.process] ?? -1];
    if (line) befallLine(line, trouble);
  }

  heal(): void {
    for (const line of this.#engine.lines) healLine(line);
  }

  leftovers(): string[] {
    const { log } = this.#engine;
    if (!log) return [];
    const keys = ["", ...["one", "two", ...[0, 1, 2, 3]].map((id) => `@${id}`), ...NAMES.map((name) => `#${name}`)];
    const pinned = keys.filter((key) => (log.find(key)?.pins ?? 0) > 0);
    return [
      ...(log.listeners.size > 0 ? [`${log.listeners.size} brokers still follow the log`] : []),
      ...pinned.map((key) => `the record of "${key}" is still pinned`),
    ];
  }
}

/** Processes that share a store, and reach it over connections that fail. */
class StoreWorld extends World {
  readonly asked: readonly Asked[] = [];
  readonly #store: MemoryStore;
  readonly #sessions: MemorySession[] = [];
  readonly #logBytes: number;

  constructor({ events, page, logBytes }: Setting, clock: Clock) {
    super();
    this.#store = new MemoryStore({ retention: events, page, clock });
    this.#logBytes = logBytes;
  }

  get appended(): readonly Appending[] {
    return this.#store.appended;
  }

  get epochs(): readonly string[] {
    return this.#store.epochs;
  }

  engine(process: number): Engine {
    const remote = {
      open: (listener: Parameters<MemoryStore["open"]>[0]) => {
        const session = this.#store.open(listener);
        this.#sessions[process] = session;
        return session;
      },
    };
    return sharedLogEngine(remote, { logBytes: this.#logBytes, retention: { age: Infinity } });
  }

  befall(trouble: Trouble): void {
    const session = this.#sessions[trouble.process];
    if (!session) return;
    switch (trouble.do) {
      case "feed":
        session.feed(trouble.is);
        break;
      case "commands":
        session.commands(trouble.is);
        break;
      case "swallow":
        if (session.swallows !== Infinity) session.swallows = trouble.messages;
        break;
      case "silence":
        session.swallows = Infinity;
        break;
      case "anew":
        this.#store.beginAnew();
        break;
      case "lose":
        this.#store.lose();
        break;
      default:
        befallLine(session, trouble);
    }
  }

  heal(): void {
    for (const session of this.#store.sessions) {
      healLine(session);
      session.commands(true);
      session.feed(true);
      if (session.swallows < Infinity) session.swallows = 0;
    }
  }

  leftovers(): string[] {
    const open = this.#store.sessions.filter(({ isClosed }) => !isClosed);
    return open.length > 0 ? [`${open.length} sessions of the store are open`] : [];
  }
}

export const worldOf = (stage: Scene, kinds: Kinds, setting: Setting, clock: Clock): World =>
  kinds.store ? new StoreWorld(setting, clock) : new MemoryWorld(stage, setting, clock);

function befallLine(line: Line, trouble: Trouble): void {
  if (trouble.do === "delay") line.delay(trouble);
  else if (trouble.do === "refuse") line.refusals = trouble.times;
  else if (trouble.do === "lose-answer") line.losesAnswer = true;
}

function healLine(line: Line): void {
  line.delay();
  line.refusals = 0;
  line.losesAnswer = false;
}
