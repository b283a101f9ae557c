import { BrokerError } from "../base/errors.ts";
import { ExpiringMap } from "../base/expiring-map.ts";
import { randomName } from "../base/random.ts";
import { checkNumbers } from "../base/validate.ts";
import type { Engine, EngineListener, EngineSession } from "../engine/engine.ts";
import { appendOnce, type SeenEvents } from "../engine/idempotency.ts";
import { encode, textDecoder } from "../event/sse-format.ts";
import type { ChannelLog } from "../log/channel-log.ts";
import { Log, type LogOptions, resolveLogOptions } from "../log/log.ts";
import type { ObjectStorage, Row } from "./cloudflare.ts";

/** Options of {@link durableEngine}. */
export interface DurableEngineOptions extends LogOptions {
  /**
   * Milliseconds that the key of an event (`Idempotency-Key`) is remembered; each costs a row. 100,000 are, at the most, and
   * beyond that the oldest of the subject that has the most are forgotten. 0 remembers none.
   * @default 300_000
   */
  readonly idempotencyWindow?: number | undefined;
}

/** What of the storage and its clock the engine of an object needs from it. */
export interface ObjectEngine extends Engine {
  /** Drops what is old, and rows with it. Milliseconds until there may be more to drop; `Infinity` if nothing is left that could be. */
  tidy(): number;
  /** Whether nothing is kept. */
  readonly isEmpty: boolean;
  /** Told of a time, epoch milliseconds, at which there will be something to drop. */
  onKept: ((time: number) => void) | undefined;
  /** Told of what the storage refused when nobody could be told any more. */
  onError: ((error: unknown) => void) | undefined;
}

const SCHEMA = `
CREATE TABLE IF NOT EXISTS fanwire_meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fanwire_events (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, keys TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS fanwire_channels (key TEXT PRIMARY KEY, dropped INTEGER NOT NULL, forced INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fanwire_names (
  kind TEXT NOT NULL, name TEXT NOT NULL, owner TEXT NOT NULL, until INTEGER NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, name)
) WITHOUT ROWID;`;

/** Milliseconds between two looks for what is remembered no longer, at the least. */
const TIDY = 30_000;
/** Rows whose events the log dropped are deleted so many at a time at the least, because each channel of theirs costs a row then. */
const SWEEP = 64;

/**
 * Keeps the log in the SQLite of a Durable Object, so that it survives eviction, hibernation and deploys; ids stay valid. An event costs
 * one row written and one deleted, whatever its channels. What the log holds is in memory as well, so `logBytes` is less by default than
 * elsewhere: 8 MiB of the 128 MB that the objects of a class share.
 *
 * @example createBroker({ engine: durableEngine(ctx.storage) })
 */
export function durableEngine(
  storage: Pick<ObjectStorage, "sql">,
  { idempotencyWindow = 300_000, ...rest }: DurableEngineOptions = {},
): ObjectEngine {
  const bounds = resolveLogOptions("durableEngine()", { ...rest, logBytes: rest.logBytes ?? 8 * 1024 * 1024 });
  checkNumbers("durableEngine()", { idempotencyWindow }, 0);
  const run = (query: string, ...bindings: unknown[]): Row[] => [...storage.sql.exec(query, ...bindings)];
  const known: SeenEvents = new ExpiringMap();
  /** Positions that the log dropped and that still have a row. */
  let lost: number[] = [];
  /** Channels of theirs, and those that the log forgot. */
  const touched = new Set<string>();
  /** Channels that were loaded, in the order of their use: none is forgotten before those who are connected have joined theirs. */
  const recalled = new Map<string, ChannelLog>();
  let log: Log | undefined;

  function load(): Log {
    storage.sql.exec(SCHEMA);
    const meta = new Map(run("SELECT name, value FROM fanwire_meta").map(({ name, value }) => [name, value]));
    let epoch = meta.get("epoch") as string | undefined;
    if (epoch === undefined) {
      epoch = randomName(12);
      run("INSERT INTO fanwire_meta VALUES ('epoch', ?)", epoch);
    }
    const loaded = new Log(epoch, bounds);
    loaded.forgottenThrough = Number(meta.get("forgotten") ?? 0);
    for (const { key, dropped, forced } of storage.sql.exec("SELECT * FROM fanwire_channels")) {
      const channel = loaded.pin(key as string);
      channel.droppedThrough = channel.last = dropped as number;
      channel.evictedThrough = forced as number;
      recalled.set(key as string, channel);
    }
    for (const { seq, at, keys, body } of storage.sql.exec("SELECT * FROM fanwire_events ORDER BY seq")) {
      const names = JSON.parse(keys as string) as string[];
      for (const key of names) {
        const channel = recalled.get(key) ?? loaded.pin(key);
        // Of what is not written down nothing was dropped since its first event.
        if (!recalled.delete(key)) channel.droppedThrough = Math.min(channel.droppedThrough, (seq as number) - 1);
        recalled.set(key, channel);
      }
      loaded.restore(seq as number, names, body as string, at as number);
    }
    // What another channel keeps may be older than what was dropped.
    for (const channel of recalled.values()) channel.last = Math.max(channel.last, channel.droppedThrough);
    loaded.head = Math.max(loaded.head, Number(meta.get("head") ?? 0));
    loaded.storageListener = {
      onEntryRemoved({ seq, keys }) {
        lost.push(seq);
        for (const key of keys) touched.add(key);
      },
      onChannelForgotten: (key) => void touched.add(key),
    };
    keep("key", known);
    loaded.applyRetention(Date.now());
    return loaded;
  }

  function keep<T>(kind: string, deadlines: ExpiringMap<T>): void {
    const time = Date.now();
    for (const row of run("SELECT * FROM fanwire_names WHERE kind = ? ORDER BY until", kind)) {
      const { name, owner, until, value } = row as { name: string; owner: string; until: number; value: string };
      deadlines.set(name, until - time, JSON.parse(value), owner);
    }
    deadlines.onForget = (name) =>
      attempt(() => run("DELETE FROM fanwire_names WHERE kind = ? AND name = ?", kind, name));
    deadlines.onSet = (name, until, value, owner) =>
      attempt(() => {
        run(
          "INSERT OR REPLACE INTO fanwire_names VALUES (?, ?, ?, ?, ?)",
          ...[kind, name, owner, until, JSON.stringify(value)],
        );
        engine.onKept?.(Math.max(until, Date.now() + TIDY));
      });
  }

  /** Does what nobody waits for: it is of no consequence before the next restart, and must not undo what was done. */
  function attempt(write: () => void): void {
    try {
      write();
    } catch (error) {
      engine.onError?.(error);
    }
  }

  function settle(opened: Log): void {
    for (const [key, channel] of recalled) {
      opened.unpin(channel);
      if (!opened.find(key)) touched.add(key);
    }
    recalled.clear();
  }

  function append(opened: Log, keys: readonly string[], text: string): number {
    const seq = opened.head + 1;
    const at = Date.now();
    try {
      // First: what cannot be kept is not given to anybody.
      run("INSERT INTO fanwire_events VALUES (?, ?, ?, ?)", seq, at, JSON.stringify(keys), text);
    } catch (cause) {
      if (/TOOBIG|too big/i.test(String(cause)))
        throw new BrokerError("event-too-large", "Event refused: it is larger than a row of the object may be.", {
          cause,
        });
      throw new BrokerError("engine-down", "Event refused: the object's storage does not take it.", { cause });
    }
    settle(opened);
    opened.append(keys, text, at);
    const { age } = bounds.retention;
    if (age !== Infinity) engine.onKept?.(at + age / 2);
    if (lost.length >= Math.max(SWEEP, opened.size / 8)) attempt(() => sweep(opened));
    return seq;
  }

  /** Deletes the rows of what the log dropped, and writes down how far that is, in one turn and so at once. */
  function sweep(opened: Log): void {
    if (lost.length === 0 && touched.size === 0) return;
    for (const [first, last] of stretches(lost))
      run("DELETE FROM fanwire_events WHERE seq BETWEEN ? AND ?", first, last);
    for (const key of touched) {
      const channel = opened.find(key);
      // Also if that is less than is known of the forgotten ones: what is not written down has dropped nothing.
      if (channel)
        run(
          "INSERT OR REPLACE INTO fanwire_channels VALUES (?, ?, ?)",
          key,
          channel.droppedThrough,
          channel.evictedThrough,
        );
      else run("DELETE FROM fanwire_channels WHERE key = ?", key);
    }
    run(
      "INSERT OR REPLACE INTO fanwire_meta VALUES ('head', ?), ('forgotten', ?)",
      opened.head,
      opened.forgottenThrough,
    );
    lost = [];
    touched.clear();
  }

  const engine: ObjectEngine = {
    get isEmpty() {
      return log?.size === 0 && run("SELECT 1 FROM fanwire_names LIMIT 1").length === 0;
    },
    onKept: undefined,
    onError: undefined,
    open(follower: EngineListener): EngineSession {
      const opened = (log ??= load());
      opened.listeners.add(follower);
      return {
        log: opened,
        append(keys, text, nonce) {
          const body = wellFormed(text);
          return appendOnce(opened.epoch, known, idempotencyWindow, keys, body, nonce, () =>
            append(opened, keys, body),
          );
        },
        persistNames: keep,
        close: () => void opened.listeners.delete(follower),
      };
    },
    tidy() {
      const opened = (log ??= load());
      const time = Date.now();
      settle(opened);
      opened.applyRetention(time);
      sweep(opened);
      run("DELETE FROM fanwire_names WHERE until <= ?", time);
      const { age } = bounds.retention;
      const [mark] = run("SELECT MIN(until) AS until FROM fanwire_names");
      const marked = typeof mark?.until === "number" ? Math.max(TIDY, mark.until - time) : Infinity;
      return Math.min(opened.size > 0 ? age / 2 : Infinity, marked);
    },
  };
  return engine;
}

/** As it goes over the wire: SQLite would keep half of a surrogate pair as something else. */
const wellFormed = (text: string): string => (/\p{Surrogate}/u.test(text) ? decoder.decode(encode(text)) : text);
const decoder = textDecoder();

/** Numbers as stretches of those that follow each other. */
function stretches(numbers: readonly number[]): [first: number, last: number][] {
  const found: [number, number][] = [];
  for (const number of numbers.toSorted((a, b) => a - b)) {
    const last = found.at(-1);
    if (last && last[1] === number - 1) last[1] = number;
    else found.push([number, number]);
  }
  return found;
}
