// The body of a response with a run: only the events of the application, and comments. It ends cleanly at the end of the run, and with an error
// otherwise, so that a client comes back for the rest.
import { BrokerError } from "../base/errors.ts";
import { every, nextTurn, now } from "../base/runtime.ts";
import { type Lifetime, watchLifetime } from "../delivery/connection-lifetime.ts";
import { Heartbeat, type HeartbeatTarget } from "../delivery/heartbeat.ts";
import type { RunEnd } from "../engine/run-store.ts";
import { encode } from "../event/sse-format.ts";
import { runLost } from "./run-errors.ts";
import type { FollowerListener, RunFollower } from "./run-follower.ts";

/** How many times streams are looked at in the time that a client may take for a chunk. */
const LOOKS = 4;

/** The streams of one broker. Sends heartbeats to those that wait, and ends those whose client does not read. */
export class RunStreams {
  readonly heartbeat: Heartbeat<RunStream>;
  readonly #streams = new Set<RunStream>();
  readonly #timeoutMs: number;
  #stopLooking: (() => void) | undefined;

  /** A client that does not take a chunk for `timeoutMs`, or a quarter more, is cut off. */
  constructor(heartbeat: number, timeoutMs: number) {
    this.heartbeat = new Heartbeat<RunStream>(heartbeat, (stream) => stream.sendHeartbeat());
    this.#timeoutMs = timeoutMs;
  }

  add(stream: RunStream): void {
    this.#streams.add(stream);
    this.heartbeat.add(stream);
    if (this.#timeoutMs !== Infinity) this.#stopLooking ??= every(this.#timeoutMs / LOOKS, () => this.#look());
  }

  delete(stream: RunStream): void {
    this.heartbeat.delete(stream);
    this.#streams.delete(stream);
    if (this.#streams.size > 0) return;
    this.#stopLooking?.();
    this.#stopLooking = undefined;
  }

  /** Ends all streams. Their clients may come back. */
  interrupt(reason: string): void {
    for (const stream of [...this.#streams]) stream.interrupt(reason);
  }

  /** One timer for all streams: one of its own would be set for each chunk. */
  #look(): void {
    const time = now();
    for (const stream of [...this.#streams])
      if (stream.isBlocked && time - stream.sentAt >= this.#timeoutMs) stream.interrupt("its client does not read");
  }
}

/** A comment, which every parser skips. Bun and srvx hold the head of a response back until there is a chunk. */
const COMMENT = encode(":\n");

export class RunStream implements UnderlyingDefaultSource<Uint8Array>, FollowerListener, HeartbeatTarget {
  lastSentTick = 0;
  slot = 0;
  /** The time of the last chunk, as `now()` counts. */
  sentAt = 0;
  readonly #host: RunStreams;
  readonly #follower: RunFollower;
  readonly #trailerOf: (end: RunEnd) => string;
  readonly #onClosed: () => void;
  readonly #stopWatch: () => void;
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  /** Whether the client can take a chunk now. */
  #isReady = false;
  #isClosed = false;
  /** The error that follows the last chunk. */
  #lastError: BrokerError | undefined;

  constructor(
    host: RunStreams,
    follow: (listener: FollowerListener) => RunFollower,
    trailerOf: (end: RunEnd) => string,
    lifetime: Omit<Lifetime, "onMaxAge">,
    onClosed: () => void,
  ) {
    this.#host = host;
    this.#trailerOf = trailerOf;
    this.#onClosed = onClosed;
    this.#follower = follow(this);
    const onMaxAge = (): void => this.interrupt("the connection is as old as maxConnectionAge");
    this.#stopWatch = watchLifetime(
      { ...lifetime, onMaxAge },
      { onClientLeft: () => this.cancel(), onExpired: () => this.interrupt("its grant has expired") },
    );
    host.add(this);
  }

  /** Whether the client has not taken the last chunk. */
  get isBlocked(): boolean {
    return !this.#isReady;
  }

  start(controller: ReadableStreamDefaultController<Uint8Array>): void {
    this.#controller = controller;
    this.#enqueue(COMMENT);
  }

  pull(): void {
    const error = this.#lastError;
    if (error) {
      // Node sends in the next turn what it is given in this one.
      nextTurn(() => this.#fail(error));
      return;
    }
    this.#isReady = true;
    this.#follower.requestNext();
  }

  cancel(): void {
    if (!this.#finish()) return;
    try {
      this.#controller?.close();
    } catch {
      // The runtime has cancelled the stream.
    }
  }

  onEvents(bytes: Uint8Array<ArrayBuffer>): void {
    this.#enqueue(bytes);
  }

  onEnd(end: RunEnd): void {
    if (end === "lost") {
      // An error overtakes what is on its way, and a client without an event would ask for the same ones again and again. The runtime asks for
      // what follows the comment when it has sent the events.
      this.#lastError = runLost();
      this.#enqueue(COMMENT);
    } else if (this.#finish()) {
      const trailer = this.#trailerOf(end);
      if (trailer) this.#controller?.enqueue(encode(trailer));
      this.#controller?.close();
    }
  }

  onFailure(error: BrokerError): void {
    this.#fail(error);
  }

  /** Sends a comment to a client that waits for events. */
  sendHeartbeat(): void {
    if (this.#isReady) this.#enqueue(COMMENT);
  }

  /** Ends the stream before the run has ended. The client may come back. */
  interrupt(reason: string): void {
    this.#fail(new BrokerError("closed", `Stream ended before its run: ${reason}. Come back with the last id.`));
  }

  #enqueue(bytes: Uint8Array<ArrayBuffer>): void {
    this.#isReady = false;
    this.lastSentTick = this.#host.heartbeat.tick;
    this.sentAt = now();
    try {
      this.#controller?.enqueue(bytes);
    } catch {
      // The runtime ended the stream without a call of `cancel`.
      this.#finish();
    }
  }

  #fail(error: BrokerError): void {
    if (!this.#finish()) return;
    try {
      this.#controller?.error(error);
    } catch {
      // The runtime has cancelled the stream.
    }
  }

  /** Returns whether the stream was open. */
  #finish(): boolean {
    if (this.#isClosed) return false;
    this.#isClosed = true;
    this.#follower.stop();
    this.#stopWatch();
    this.#host.delete(this);
    this.#onClosed();
    return true;
  }
}
