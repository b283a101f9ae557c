// The body of a response with a run: only the events of the application, and comments. It ends cleanly at the end of the run, and with an error
// otherwise, so that a client comes back for the rest.
import { BrokerError } from "../base/errors.ts";
import { nextTurn } from "../base/runtime.ts";
import type { TimeoutQueue } from "../base/timeout-queue.ts";
import { type Lifetime, watchLifetime } from "../delivery/connection-lifetime.ts";
import type { Heartbeat, HeartbeatTarget } from "../delivery/heartbeat.ts";
import type { RunEnd } from "../engine/run-store.ts";
import { encode } from "../event/sse-format.ts";
import { runLost } from "./run-errors.ts";
import type { FollowerListener, RunFollower } from "./run-follower.ts";

/** The streams of one broker. */
export interface StreamHost {
  readonly heartbeat: Heartbeat<RunStream>;
  /** Streams whose client does not take the last chunk. */
  readonly blocked: TimeoutQueue<RunStream>;
  readonly streams: Set<RunStream>;
}

/** A comment, which every parser skips. Bun and srvx hold the head of a response back until there is a chunk. */
const COMMENT = encode(":\n");

export class RunStream implements UnderlyingDefaultSource<Uint8Array>, FollowerListener, HeartbeatTarget {
  lastSentTick = 0;
  slot = 0;
  readonly #host: StreamHost;
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
    host: StreamHost,
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
    host.streams.add(this);
    host.heartbeat.add(this);
  }

  start(controller: ReadableStreamDefaultController<Uint8Array>): void {
    this.#controller = controller;
    this.#enqueue(COMMENT);
  }

  pull(): void {
    this.#host.blocked.delete(this);
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
    this.#host.blocked.add(this);
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
    this.#host.heartbeat.delete(this);
    this.#host.blocked.delete(this);
    this.#host.streams.delete(this);
    this.#onClosed();
    return true;
  }
}
