// An engine that keeps the log in the SQLite of a Durable Object, and in memory for reads. Also stores names that outlive the instance:
// idempotency keys, barred ids and lingering ids; and runs.
import { ExpiringMap } from "../base/expiring-map.ts";
import { randomName } from "../base/random.ts";
import { checkNumbers } from "../base/validate.ts";
import type { Engine, EngineListener, EngineSession } from "../engine/engine.ts";
import { appendOnce, type SeenEvents } from "../engine/idempotency.ts";
import type { ChannelLog } from "../log/channel-log.ts";
import { Log } from "../log/log.ts";
import { type LogOptions, type RetentionBounds, resolveLogOptions } from "../log/log-options.ts";
import { sendEphemeral } from "../log/transient.ts";
import {
  DELETE_EXPIRED_NAMES,
  DELETE_NAME,
  INSERT_NAME,
  loadNames,
  NAMES_TABLE,
  type NameKind,
  rowOf,
} from "../sqlite/stored-names.ts";
import { RUN_TABLES } from "../sqlite/stored-runs.ts";
import { wellFormed } from "../sqlite/well-formed.ts";
import type { Row } from "./cloudflare.ts";
import { type EngineStorage, ObjectRuns, refusedWrite } from "./object-runs.ts";

/** Options of {@link durableEngine}. */
export interface DurableEngineOptions extends LogOptions {
  /**
   * Milliseconds for which an idempotency key (`Idempotency-Key`) is remembered, 0 or more; each key costs a row. At most 100,000 keys are
   * remembered: beyond that, the subject with the most keys loses its oldest. 0 remembers no key. @default 300_000
   */
  readonly idempotencyWindow?: number | undefined;
}

/** The engine of an object, with the work that the object's alarm does. */
export interface ObjectEngine extends Engine {
  /**
   * Drops old events, names and runs, deletes their rows, and ends runs whose producer is gone. Returns the milliseconds until there is more to do;
   * `Infinity` if there never will be.
   */
  cleanUp(): number;
  /** Whether no event, no name and no run is stored. */
  readonly isEmpty: boolean;
  /** Asks for an alarm: at this time (epoch milliseconds) something can be dropped, or the lease of a run is over. */
  requestWake: ((time: number) => void) | undefined;
  /** Receives an error of the storage that no caller waits for. */
  onError: ((error: unknown) => void) | undefined;
}

/**
 * `dropped` and `evicted` are positions: {@link ChannelLog.droppedThrough} and {@link ChannelLog.evictedThrough}. `owner` is the name of the
 * channel's owner, and `subject` the publisher of the event.
 */
const SCHEMA = `
CREATE TABLE IF NOT EXISTS fanwire_meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fanwire_events (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, keys TEXT NOT NULL, body TEXT NOT NULL, subject TEXT);
CREATE TABLE IF NOT EXISTS fanwire_channels (key TEXT PRIMARY KEY, dropped INTEGER NOT NULL, evicted INTEGER NOT NULL, owner TEXT) WITHOUT ROWID;
${[NAMES_TABLE, ...RUN_TABLES].join(";")};`;
/** Stored as `schema` in the table of facts. A storage without it has the first version. */
const SCHEMA_VERSION = 2;
/** From the first version to the second one. */
const MIGRATION =
  "ALTER TABLE fanwire_events ADD COLUMN subject TEXT; ALTER TABLE fanwire_channels ADD COLUMN owner TEXT;";

/** The shortest time between two alarms that delete expired names, or events that nothing keeps, in milliseconds. */
const MIN_CLEANUP_MS = 30_000;
/** Rows of dropped events are deleted in batches of this size at least, because each batch also writes a row for each of its channels. */
const MIN_DELETE_BATCH = 64;
/** The default of `logBytes`. The log is also in memory, and the objects of a class share 128 MB. */
const DEFAULT_LOG_BYTES = 8 * 1024 * 1024;

/**
 * Creates an engine that keeps the log in the SQLite of a Durable Object. The log survives eviction, hibernation and deploys, and ids stay
 * valid. An event costs one row written and one row deleted, whatever the number of its channels. The log is in memory as well, so
 * `logBytes` is 8 MiB by default: the objects of a class share 128 MB.
 *
 * @example createBroker({ engine: durableEngine(ctx.storage) })
 * @throws `RangeError` or `TypeError` for an invalid option
 */
export function durableEngine(storage: EngineStorage, options: DurableEngineOptions = {}): ObjectEngine {
  const where = "durableEngine()";
  const logBytes = options.logBytes ?? DEFAULT_LOG_BYTES;
  const bounds = resolveLogOptions(where, { ...options, logBytes }, { idempotencyWindow: 300_000 });
  const { idempotencyWindow } = bounds;
  checkNumbers(where, { idempotencyWindow }, 0);
  const run = (query: string, ...bindings: unknown[]): Row[] => [...storage.sql.exec(query, ...bindings)];
  const seenEvents: SeenEvents = new ExpiringMap();
  /** Positions of events that the log dropped and that still have a row. */
  let droppedSeqs: number[] = [];
  /** Channels of those events, and channels that the log forgot. Their rows are out of date. */
  const changedKeys = new Set<string>();
  /**
   * Channels that were loaded, in the order of their last use. Each has a pin until the first append or alarm, so that the log forgets none
   * before restored connections have subscribed.
   */
  const loadedChannels = new Map<string, ChannelLog>();
  let log: Log | undefined;
  let runs: ObjectRuns | undefined;
  const openRuns = (): ObjectRuns => (runs ??= new ObjectRuns(storage, (time) => engine.requestWake?.(time)));

  /** Reads the log and the names from the storage. Creates the tables at the first start. */
  function load(): Log {
    storage.sql.exec(SCHEMA);
    const meta = new Map(run("SELECT name, value FROM fanwire_meta").map(({ name, value }) => [name, value]));
    let epoch = meta.get("epoch") as string | undefined;
    if (epoch === undefined) {
      epoch = randomName(12);
      run("INSERT INTO fanwire_meta VALUES ('epoch', ?), ('schema', ?)", epoch, SCHEMA_VERSION);
    } else if (meta.get("schema") !== SCHEMA_VERSION) {
      storage.sql.exec(MIGRATION);
      run("INSERT INTO fanwire_meta VALUES ('schema', ?)", SCHEMA_VERSION);
    }
    const loaded = new Log(epoch, bounds);
    const forgotten = meta.get("forgotten") ?? 0;
    // The first version stored one position for all channels.
    if (typeof forgotten === "number") loaded.restoreForgotten(forgotten);
    else for (const [group, through] of JSON.parse(String(forgotten))) loaded.forgotten.set(group, through);
    loadChannels(loaded);
    loadEvents(loaded);
    loaded.head = Math.max(loaded.head, Number(meta.get("head") ?? 0));
    loaded.storageListener = {
      onEntryRemoved({ seq, keys }) {
        droppedSeqs.push(seq);
        for (const key of keys) changedKeys.add(key);
      },
      onChannelForgotten: (key) => void changedKeys.add(key),
    };
    persistNames("key", seenEvents);
    loaded.applyRetention(Date.now());
    return loaded;
  }

  function loadChannels(loaded: Log): void {
    for (const { key, dropped, evicted, owner } of storage.sql.exec("SELECT * FROM fanwire_channels")) {
      const channel = loaded.pin(key as string);
      loaded.restoreOwner(channel, owner as string | null);
      channel.droppedThrough = channel.last = dropped as number;
      channel.evictedThrough = evicted as number;
      loadedChannels.set(key as string, channel);
    }
  }

  function loadEvents(loaded: Log): void {
    for (const row of storage.sql.exec("SELECT * FROM fanwire_events ORDER BY seq")) {
      const { seq, at, body, subject } = row as { seq: number; at: number; body: string; subject: string | null };
      const keys = JSON.parse(row.keys as string) as string[];
      for (const key of keys) {
        const channel = loadedChannels.get(key) ?? loaded.pin(key);
        // A channel without a row has dropped no event since its first one.
        if (!loadedChannels.delete(key)) channel.droppedThrough = Math.min(channel.droppedThrough, seq - 1);
        loadedChannels.set(key, channel);
      }
      loaded.restore(seq, keys, body, at, subject ?? undefined);
    }
    // An event that another channel keeps may be older than the last one that this channel dropped.
    for (const channel of loadedChannels.values()) channel.last = Math.max(channel.last, channel.droppedThrough);
  }

  function persistNames<T>(kind: NameKind, names: ExpiringMap<T>): void {
    loadNames(run, kind, names, Date.now());
    names.onForget = (name) => tryWrite(() => run(DELETE_NAME, kind, name));
    names.onSet = (name, until, value, owner) =>
      tryWrite(() => {
        run(INSERT_NAME, ...rowOf(kind, name, owner, until, value));
        engine.requestWake?.(Math.max(until, Date.now() + MIN_CLEANUP_MS));
      });
  }

  /** Runs a write that no caller waits for. Only the next start needs it, so its failure must not undo what was already done. */
  function tryWrite(write: () => void): void {
    try {
      write();
    } catch (error) {
      engine.onError?.(error);
    }
  }

  function unpinLoadedChannels(opened: Log): void {
    for (const [key, channel] of loadedChannels) {
      opened.unpin(channel);
      if (!opened.find(key)) changedKeys.add(key);
    }
    loadedChannels.clear();
  }

  function append(opened: Log, keys: readonly string[], text: string, subject: string | undefined): number {
    const seq = opened.head + 1;
    const at = Date.now();
    const owners = opened.ownersOf(keys, subject);
    // Written first: an event that cannot be stored must not reach a subscriber.
    insertEvent(seq, at, keys, text, subject);
    unpinLoadedChannels(opened);
    for (const [index, key] of keys.entries()) {
      const owner = opened.find(key)?.owner;
      if (owner && owner.name !== owners[index]) changedKeys.add(key);
    }
    opened.append(keys, text, at, subject, owners);
    // The row can be deleted when the last of its channels has released the event.
    const wakeMs = Math.max(...keys.map((key) => cleanUpAfter(opened.find(key)?.retention ?? bounds.retention)));
    if (wakeMs !== Infinity) engine.requestWake?.(at + wakeMs);
    if (droppedSeqs.length >= Math.max(MIN_DELETE_BATCH, opened.size / 8)) tryWrite(() => deleteDropped(opened));
    return seq;
  }

  /** @throws {@link BrokerError} `event-too-large`, `engine-down` */
  function insertEvent(
    seq: number,
    at: number,
    keys: readonly string[],
    text: string,
    subject: string | undefined,
  ): void {
    try {
      run("INSERT INTO fanwire_events VALUES (?, ?, ?, ?, ?)", seq, at, JSON.stringify(keys), text, subject ?? null);
    } catch (cause) {
      throw refusedWrite(cause);
    }
  }

  /** Deletes the rows of dropped events, and stores how far each channel has dropped: in one turn, so that all of it is one transaction. */
  function deleteDropped(opened: Log): void {
    if (droppedSeqs.length === 0 && changedKeys.size === 0) return;
    for (const [first, last] of rangesOf(droppedSeqs))
      run("DELETE FROM fanwire_events WHERE seq BETWEEN ? AND ?", first, last);
    for (const key of changedKeys) {
      const channel = opened.find(key);
      // Stored even if `droppedThrough` is less than `forgottenThrough`: a channel without a row counts as one that dropped nothing.
      if (channel)
        run(
          "INSERT OR REPLACE INTO fanwire_channels VALUES (?, ?, ?, ?)",
          key,
          channel.droppedThrough,
          channel.evictedThrough,
          channel.owner?.name ?? null,
        );
      else run("DELETE FROM fanwire_channels WHERE key = ?", key);
    }
    run(
      "INSERT OR REPLACE INTO fanwire_meta VALUES ('head', ?), ('forgotten', ?)",
      opened.head,
      JSON.stringify([...opened.forgotten]),
    );
    droppedSeqs = [];
    changedKeys.clear();
  }

  const engine: ObjectEngine = {
    get isEmpty() {
      return log?.size === 0 && openRuns().isEmpty && run("SELECT 1 FROM fanwire_names LIMIT 1").length === 0;
    },
    requestWake: undefined,
    onError: undefined,
    open(listener: EngineListener): EngineSession {
      const opened = (log ??= load());
      opened.listeners.add(listener);
      return {
        log: opened,
        append(keys, text, idempotencyKey, _recipient, subject) {
          const body = wellFormed(text);
          return appendOnce(opened.epoch, seenEvents, idempotencyWindow, keys, body, idempotencyKey, () =>
            append(opened, keys, body, subject),
          );
        },
        sendEphemeral: (keys, text) => sendEphemeral(opened, keys, text),
        persistNames,
        openRuns,
        close: () => void opened.listeners.delete(listener),
      };
    },
    cleanUp() {
      const opened = (log ??= load());
      const time = Date.now();
      unpinLoadedChannels(opened);
      const age = opened.applyRetention(time);
      deleteDropped(opened);
      run(DELETE_EXPIRED_NAMES, time);
      const [nextName] = run("SELECT MIN(until) AS until FROM fanwire_names");
      const namesMs = typeof nextName?.until === "number" ? Math.max(MIN_CLEANUP_MS, nextName.until - time) : Infinity;
      return Math.min(age / 2, namesMs, openRuns().cleanUp());
    },
  };
  return engine;
}

/** Returns the milliseconds after which the rows of a channel's events may be deleted. */
const cleanUpAfter = ({ events, age }: RetentionBounds): number => (events === 0 ? MIN_CLEANUP_MS : age / 2);

/** Returns numbers as ranges of consecutive numbers. */
function rangesOf(numbers: readonly number[]): [first: number, last: number][] {
  const ranges: [number, number][] = [];
  for (const number of numbers.toSorted((a, b) => a - b)) {
    const last = ranges.at(-1);
    if (last && last[1] === number - 1) last[1] = number;
    else ranges.push([number, number]);
  }
  return ranges;
}
