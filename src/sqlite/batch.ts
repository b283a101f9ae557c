// The events of one commit: writes them in a transaction, and delivers them after it.
import { BrokerError } from "../base/errors.ts";
import type { AppendResult } from "../engine/engine.ts";
import { eventFingerprint, isRepeated, type SeenEvents } from "../engine/idempotency.ts";
import { publisherOf } from "../event/channel-key.ts";
import type { Log } from "../log/log.ts";
import { type Connection, kindOf } from "./database.ts";
import type { SqliteStore } from "./store.ts";
import { INSERT_NAME, rowOf } from "./stored-names.ts";

/** An event that waits for the next commit. */
export interface EventToAppend {
  readonly keys: readonly string[];
  readonly text: string;
  readonly idempotencyKey: string | undefined;
  readonly subject: string | undefined;
}
interface PendingEvent extends EventToAppend {
  readonly resolve: (result: AppendResult) => void;
  readonly reject: (error: unknown) => void;
}
/** An event that was written, or found again by its key. */
export interface WrittenEvent {
  readonly event: PendingEvent;
  readonly seq: number;
  readonly at: number;
  readonly owners: readonly string[];
  readonly print: string;
  readonly repeated: boolean;
}
/** Something else that happens in its turn. */
export interface Task {
  /** Writes, in the transaction of the events beside it. */
  readonly write?: () => void;
  /** Called after the commit. */
  readonly run: () => void;
  /** Called in place of `run` if the commit fails. Without it, `run` is called then as well. */
  readonly reject?: (error: unknown) => void;
}
export type Pending = PendingEvent | Task;

/** The idempotency keys of a file, in memory. */
export interface KeyWindow {
  readonly seen: SeenEvents;
  /** Milliseconds for which a key is remembered. */
  readonly windowMs: number;
}

/** Writes a batch. Called in a transaction. Refuses single events at once; throws what concerns the file, and so all of them. */
export function writeBatch(
  db: Connection,
  store: SqliteStore,
  { seen, windowMs }: KeyWindow,
  batch: readonly Pending[],
): (WrittenEvent | undefined)[] {
  const keys = new Map<string, { readonly seq: number; readonly print: string }>();
  const at = Date.now();
  const written = batch.map((event): WrittenEvent | undefined => {
    if ("run" in event) {
      event.write?.();
      return undefined;
    }
    const { idempotencyKey, subject, text } = event;
    const print = idempotencyKey === undefined ? "" : eventFingerprint(event.keys, text);
    const before = idempotencyKey === undefined ? undefined : (keys.get(idempotencyKey) ?? seen.get(idempotencyKey));
    let owners: readonly string[] = [];
    try {
      if (isRepeated(before, print)) return { event, seq: before.seq, at, owners, print, repeated: true };
      owners = store.ownersOf(event.keys, subject);
    } catch (error) {
      event.reject(error);
      return undefined;
    }
    try {
      store.append(event.keys, text, at, owners);
    } catch (error) {
      // Any other error concerns the file, and so all events.
      if (kindOf(error) !== "too-large") throw error;
      event.reject(tooLarge(error));
      return undefined;
    }
    const { head: seq } = store;
    if (idempotencyKey !== undefined && windowMs > 0) {
      keys.set(idempotencyKey, { seq, print });
      const until = at + windowMs;
      db.run(INSERT_NAME, ...rowOf("key", idempotencyKey, publisherOf(idempotencyKey), until, { seq, print }));
    }
    return { event, seq, at, owners, print, repeated: false };
  });
  store.finish();
  return written;
}

/** Delivers a batch that was committed, in order, and answers its publishers. */
export function deliverBatch(
  log: Log,
  { seen, windowMs }: KeyWindow,
  batch: readonly Pending[],
  written: readonly (WrittenEvent | undefined)[],
): void {
  const { epoch } = log;
  for (const [index, item] of batch.entries()) {
    if ("run" in item) {
      item.run();
      continue;
    }
    const result = written[index];
    if (!result) continue;
    const { event, seq, at, owners, print, repeated } = result;
    const { keys, text, idempotencyKey, subject } = event;
    if (!repeated) {
      if (idempotencyKey !== undefined) seen.set(idempotencyKey, windowMs, { seq, print }, publisherOf(idempotencyKey));
      log.append(keys, text, at, subject, owners);
    }
    event.resolve({ epoch, seq, repeated });
  }
}

/** Refuses what was to be committed. What is not stored happens all the same. */
export function refuseBatch(batch: readonly Pending[], refusal: BrokerError): void {
  for (const item of batch)
    if ("run" in item && !item.reject) item.run();
    else item.reject?.(refusal);
}

/** Returns the error for a row that is too large. */
export const tooLarge = (cause: unknown): BrokerError =>
  new BrokerError("event-too-large", "Event refused: it is larger than a row of SQLite may be.", { cause });
