// Ends streams when their server stops. Node waits for open responses in `server.close()`, and says nothing to them.
import { every } from "../base/runtime.ts";
import type { NodeServer } from "./types.ts";

/** Milliseconds between two looks at a server. Node has no event for the call of `server.close()`. */
const LOOK_MS = 200;

/** A stream that ends when its server stops. */
export interface ServedStream {
  closeWithServer(): void;
}

/** The streams of one server. */
interface Watch {
  readonly streams: Set<ServedStream>;
  readonly stop: () => void;
}

const watches = new Map<NodeServer, Watch>();

/** Ends a stream when its server stops listening. Returns the server, for {@link unwatch}; `undefined` if it cannot be watched. */
export function watchServer(server: NodeServer | null | undefined, stream: ServedStream): NodeServer | undefined {
  // A server that gets its sockets from elsewhere never listens, so its end cannot be observed.
  if (!server?.listening) return undefined;
  let watch = watches.get(server);
  if (!watch) {
    const look = (): void => {
      if (!server.listening) endStreams(server);
    };
    watches.set(server, (watch = { streams: new Set(), stop: every(LOOK_MS, look) }));
  }
  watch.streams.add(stream);
  return server;
}

/** Ends the watch of a stream. */
export function unwatch(server: NodeServer | undefined, stream: ServedStream): void {
  if (!server) return;
  const watch = watches.get(server);
  if (!watch?.streams.delete(stream) || watch.streams.size > 0) return;
  watch.stop();
  watches.delete(server);
}

/** Ends all streams of a server. */
export function endStreams(server: NodeServer): void {
  for (const stream of watches.get(server)?.streams ?? []) stream.closeWithServer();
}
