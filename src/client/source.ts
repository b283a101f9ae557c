// Sources of a client's blocks: a stream of its own, or one that it shares with other tabs.
import type { ConnectError } from "./connect-error.ts";
import type { Block, ClientState } from "./events.ts";
import type { RequestPlan } from "./options.ts";

/** The part of a client that a source uses. */
export interface SourceHost extends RequestPlan {
  readonly state: ClientState;
  /** Milliseconds without a byte after which an open stream is dead. */
  readonly silence: number;
  /** A stream has opened. */
  onOpen(headers: Headers): void;
  /** Takes the blocks of one chunk, which may be none. The source waits before it reads on. */
  receive(blocks: readonly Block[]): Promise<void>;
  setState(state: ClientState, retryIn?: number, error?: unknown): void;
  /** The stream does not come back: because of an error, or because the server has answered 204. */
  finish(error?: ConnectError): Promise<void>;
}

/** A source of blocks. */
export interface Source {
  /** Whether others read the same stream. Then `POST /subscribe` cannot change its channels: it has to start again. */
  readonly isShared?: boolean;
  start(): void;
  /** Continues at once on another connection: for other channels if it `isMoved`, or because this one may be dead. */
  restart(isMoved?: boolean): void;
  /** Ends a wait for the next attempt. */
  wake(): void;
  /** Lets go of the connection: the page is frozen, or goes away and may come back. */
  suspend(): void;
  /** Comes back after `suspend()`. */
  resume(): void;
  close(): void;
}

/** Creates a source. */
export type CreateSource = (host: SourceHost) => Source;

/** Follows what happens to the page. Returns a function that ends it. Where there is no page, nothing happens. */
export function watchPage(source: Source): () => void {
  const abort = new AbortController();
  const suspend = (): void => source.suspend();
  const resume = (): void => source.resume();
  const handlers = {
    // The connection may be one of the network that was left.
    online: () => source.restart(),
    visibilitychange: () => source.wake(),
    // A page with an open connection, or with a lock, is not kept for "back" and "forward".
    pagehide: suspend,
    pageshow: resume,
    freeze: suspend,
    resume,
  };
  // Events of the document bubble up to the window.
  if ("document" in globalThis)
    for (const [type, handler] of Object.entries(handlers)) addEventListener(type, handler, abort);
  return () => abort.abort();
}
