// The clients of components: one for each URL and list of channels, for as long as a component is there that uses it.
import type { EventClient } from "../client/client.ts";
import { connect } from "../client/connect.ts";
import type { ConnectError } from "../client/connect-error.ts";
import type { SourceHost } from "../client/source.ts";

type Client = EventClient<Record<string, unknown>>;

/** A client that components share. */
interface Shared {
  readonly client: Client;
  key: string;
  users: number;
  /** Changes of its channels, one after the other. */
  changes: Promise<unknown>;
}

/** One component's use of a client, and what it asked for. `channels` is `undefined` for all that are granted. */
export interface Lease {
  readonly shared: Shared;
  readonly client: Client;
  readonly url: string;
  readonly channels: readonly string[] | undefined;
}

const clients = new Map<string, Shared>();

/**
 * Returns a client for a URL and a list of channels. `last` is what the same component used until now. If some of its channels stay, its stream
 * goes on with the new ones, so that no event of those is lost.
 *
 * @throws `TypeError` for a URL that is not valid.
 */
export function acquire(url: string, channels: readonly string[] | undefined, last: Lease | undefined): Lease {
  const key = JSON.stringify([url, channels]);
  let shared = clients.get(key);
  if (!shared || isClosed(shared)) {
    const before = last?.url === url && !isClosed(last.shared) ? last.channels : undefined;
    // Events do not say their channel. So a stream of other channels only has to end, or its events would be taken for those of the new ones.
    const continues = before && channels?.some((channel) => before.includes(channel));
    shared = continues ? moved(last as Lease, before) : create(url, channels);
    clients.set((shared.key = key), shared);
    if (continues) change(shared, before, channels as readonly string[]);
  }
  shared.users++;
  return { shared, client: shared.client, url, channels };
}

/** Ends a use. The client closes in a microtask, unless another component uses it by then, or the same one again. */
export function release({ shared }: Lease): void {
  shared.users--;
  queueMicrotask(() => {
    if (shared.users > 0) return;
    forget(shared);
    shared.client.close();
  });
}

const isClosed = ({ client }: Shared): boolean => client.state === "closed";

function forget(shared: Shared): void {
  if (clients.get(shared.key) === shared) clients.delete(shared.key);
}

function create(url: string, channels: readonly string[] | undefined, lastEventId?: string): Shared {
  const client = connect<Record<string, unknown>>(url, { channels, lastEventId });
  return { client, key: "", users: 0, changes: Promise.resolve() };
}

/** Returns the client of a last use, or one that continues where it is if other components still use that with the old channels. */
function moved({ shared, url }: Lease, before: readonly string[]): Shared {
  if (shared.users > 0) return create(url, before, shared.client.lastEventId);
  forget(shared);
  return shared;
}

function change(shared: Shared, before: readonly string[], after: readonly string[]): void {
  const { client } = shared;
  const added = after.filter((channel) => !before.includes(channel));
  const removed = before.filter((channel) => !after.includes(channel));
  shared.changes = shared.changes
    .then(async () => {
      if (added.length > 0) await client.subscribe(added);
      if (removed.length > 0) await client.unsubscribe(removed);
    })
    // A refusal ends the stream, as it does for a stream that asks for these channels from the beginning.
    .catch((error: ConnectError) => (client as unknown as SourceHost).finish(error));
}
