// The option `snapshot`: the application's state, sent to a client before the events that change it, at the start of a stream and after a gap.
import { nextTurn } from "../base/runtime.ts";
import { TimeoutQueue } from "../base/timeout-queue.ts";
import type { Connection } from "../delivery/connection.ts";
import type { SnapshotSource } from "../delivery/subscriber.ts";
import { publicName } from "../event/channel-key.ts";
import { decode, encode, splitId } from "../event/sse-format.ts";
import { type Batch, type Item, isGap } from "../log/batch.ts";
import type { Gap } from "../log/gap.ts";
import type { ResumePoint } from "../log/resume.ts";
import { isTransient } from "../log/transient.ts";
import {
  type Snapshot,
  type SnapshotHost,
  type SnapshotPlace,
  SnapshotRun,
  type SnapshotSettings,
} from "./snapshot-run.ts";

/** Milliseconds for which a client may leave an event of its snapshot untaken while others wait for theirs. */
const MAX_UNTAKEN_MS = 5_000;
/**
 * Events of all snapshots in one turn of the event loop. The runtime asks for more in microtasks until the kernel's buffer is full, and a
 * generator whose state is in memory would take the whole turn: live delivery, new connections and I/O come between.
 */
const EVENTS_PER_TURN = 128;

/** The snapshots of one broker. At most `maxSnapshots` run at a time; the others wait in the order in which their clients asked. */
export class Snapshots {
  readonly snapshot: Snapshot;
  readonly settings: SnapshotSettings;
  readonly host: SnapshotHost;
  readonly #running = new Set<SnapshotRun>();
  readonly #queue = new Set<SnapshotRun>();
  readonly #untaken = new TimeoutQueue<SnapshotRun>(MAX_UNTAKEN_MS, (run) => this.#onUntaken(run));
  /** Events of this turn of the event loop, and its end. */
  #inTurn = 0;
  #turn: Promise<void> | undefined;
  /** Running snapshots whose client did not take an event for `MAX_UNTAKEN_MS`. They are ended when another one needs their place. */
  readonly #stalled = new Set<SnapshotRun>();

  constructor(snapshot: Snapshot, settings: SnapshotSettings, host: SnapshotHost) {
    this.snapshot = snapshot;
    this.settings = settings;
    this.host = host;
  }

  enter(run: SnapshotRun): void {
    this.#queue.add(run);
    this.#startNext();
    for (const stalled of this.#stalled) if (this.#queue.size > 0) stalled.endForOthers();
  }

  leave(run: SnapshotRun): void {
    this.#queue.delete(run);
    this.onTaken(run);
    if (this.#running.delete(run)) this.#startNext();
  }

  nextShare(): Promise<void> | undefined {
    this.#turn ??= new Promise((resolve) =>
      nextTurn(() => {
        this.#turn = undefined;
        this.#inTurn = 0;
        resolve();
      }),
    );
    return ++this.#inTurn > EVENTS_PER_TURN ? this.#turn : undefined;
  }

  onSent(run: SnapshotRun): void {
    if (this.#running.has(run)) this.#untaken.add(run);
  }

  onTaken(run: SnapshotRun): void {
    this.#untaken.delete(run);
    this.#stalled.delete(run);
  }

  #onUntaken(run: SnapshotRun): void {
    if (this.#queue.size > 0) run.endForOthers();
    else this.#stalled.add(run);
  }

  #startNext(): void {
    for (const run of this.#queue) {
      if (this.#running.size >= this.settings.maxSnapshots) break;
      this.#queue.delete(run);
      this.#running.add(run);
      void run.start();
    }
  }
}

/** The snapshots of one connection, one at a time. While one is sent, the connection reads nothing from the log, so its cursor stands still. */
export class ConnectionSnapshots implements SnapshotSource {
  readonly all: Snapshots;
  readonly connection: Connection;
  /** Kept until the first snapshot is complete. */
  request: Request | undefined;
  #run: SnapshotRun | undefined;
  /** A snapshot of all channels was complete up to here, so that a gap that ends before is of no concern. */
  #coveredThrough = -1;
  /** Channels that were added while another snapshot was sent. */
  #joined: string[] = [];
  /** The broker closes. No snapshot begins any more. */
  #isStopped = false;

  constructor(all: Snapshots, connection: Connection, request?: Request) {
    this.all = all;
    this.connection = connection;
    this.request = request;
  }

  get isWaiting(): boolean {
    return this.#run?.isWaiting ?? false;
  }

  /**
   * Begins the first snapshot of a stream, if it needs one. Returns the point to open the stream with: its position, and gaps that come before
   * anything else, are then sent later.
   */
  openAt(point: ResumePoint): ResumePoint {
    const { cursor, gaps, isLive, ...rest } = point;
    if (isLive) {
      this.#begin({ reason: "new", channels: this.connection.info.channels, through: cursor, heldAt: cursor });
    } else if (gaps?.some((gap) => this.stopsAfter(gap))) {
      this.connection.pendingGaps = gaps;
    } else {
      if (!point.hasMissing) this.request = undefined;
      return point;
    }
    return { ...rest, cursor, isHeld: true };
  }

  /** Behind the snapshot that is being sent, if there is one. */
  join(channels: readonly string[]): void {
    this.#joined.push(...channels);
    const { connection } = this;
    const { fanout } = this.all.host;
    if (this.#run || !this.#beginJoined()) return;
    if (!connection.live && !fanout.isLoadingHistory(connection)) return;
    fanout.cancelHistory(connection);
    connection.live = false;
    this.requestNext();
  }

  #beginJoined(): boolean {
    const channels = [...new Set(this.#joined.splice(0))];
    const { cursor } = this.connection;
    if (channels.length > 0) this.#begin({ reason: "joined", channels, through: cursor, heldAt: cursor });
    return channels.length > 0;
  }

  stopsAfter({ seq, through }: Gap): boolean {
    // A gap that ends later is only announced here, and its own place is there.
    return through <= seq && through > this.#coveredThrough;
  }

  beginAfter(batch: Batch): Batch {
    if (batch.gaps === 0) return batch;
    const { items, through, events, gaps, jumpsToHead = false } = batch;
    const stops = (item: Item): item is Gap => isGap(item) && this.stopsAfter(item);
    const first = items.findIndex(stops);
    if (first < 0) return batch;
    const { connection } = this;
    const { channels } = connection.info;
    const missing = new Set<string>();
    let isWhole = false;
    for (const gap of items.filter(stops)) {
      isWhole ||= gap.after === undefined;
      for (const key of gap.channels) missing.add(publicName(key));
    }
    const concerned = channels.filter((name) => missing.delete(name));
    // The names that are left stand for events to every client or to this client, which are part of no single channel.
    isWhole ||= missing.size > 0;
    const heldAt = items.slice(0, first).findLast((item) => !isTransient(item))?.seq ?? connection.cursor;
    this.#begin({ reason: "gap", channels: isWhole ? channels : concerned, through, heldAt });
    const sent = items.map((item, index) =>
      index < first || !isGap(item) ? item : { ...item, bytes: encode(splitId(decode(item.bytes)).text) },
    );
    return { items: sent, events, gaps, through: heldAt, more: true, isHeld: true, jumpsToHead };
  }

  requestNext(): boolean {
    const run = this.#run;
    if (!run) return false;
    if (this.#isStopped) this.connection.live = true;
    else run.requestNext();
    return true;
  }

  pause(): boolean {
    const run = this.#run;
    if (!run?.isWaiting) return false;
    run.isWaiting = false;
    this.all.onSent(run);
    return true;
  }

  reset(): void {
    // As if the connection had everything up to here. The caller moves it on.
    if (this.isWaiting) this.connection.live = true;
    this.#run?.cancel();
    this.#run = undefined;
    this.#coveredThrough = -1;
  }

  stop(): boolean {
    this.#isStopped = true;
    this.#run?.cancel();
    return this.#run !== undefined;
  }

  cancel(): void {
    this.#run?.cancel();
    this.#run = this.request = undefined;
  }

  finish({ through, coveredThrough }: SnapshotRun): void {
    this.connection.cursor = through;
    this.#coveredThrough = Math.max(this.#coveredThrough, coveredThrough);
    this.#run = this.request = undefined;
    this.#beginJoined();
  }

  #begin(place: SnapshotPlace): void {
    this.#run = new SnapshotRun(this, place);
  }
}
