// Changes the channels of a stream: by `POST /subscribe` and `POST /unsubscribe`, or by another connection.
import { ConnectError, errorOf, isTemporary } from "./connect-error.ts";
import { type AnyOptions, headersOf } from "./options.ts";
import type { Source } from "./source.ts";

/** The client whose channels change. */
export interface ChannelHost {
  readonly url: URL;
  readonly options: AnyOptions;
  readonly source: Source;
  readonly state: string;
  readonly secret: string | undefined;
  readonly isReady: boolean;
  /** The page has decided about channels: it reads them, or not. `isOpen` says that the open stream has changed, too. */
  decide(channels: readonly string[], isAdded: boolean, isOpen: boolean): void;
  until(holds: () => boolean): Promise<void>;
}

/**
 * Adds or removes channels, and returns the answer. If the server offers no change, cannot be reached, or the stream is another one by now, the
 * stream starts again with other channels at its last id, which loses nothing.
 */
export async function changeChannels(
  client: ChannelHost,
  action: "subscribe" | "unsubscribe",
  channels: string | readonly string[],
): Promise<{ readonly position?: string }> {
  const isAdded = action === "subscribe";
  const list = [channels].flat();
  await client.until(() => client.isReady);
  const { secret, options, source } = client;
  const send = async (): Promise<Response> =>
    (options.fetch ?? fetch)(new URL(action, client.url).href, {
      method: "POST",
      headers: await headersOf(options),
      body: new URLSearchParams([["secret", `${secret}`], ...list.map((channel) => ["channel", channel])]),
    });
  const response = secret !== undefined && !source.isShared ? await send().catch(() => undefined) : undefined;
  // A stream that has come in the meantime may have asked for its channels before this change.
  if (response && client.secret === secret) {
    const { ok, status } = response;
    if (ok) {
      client.decide(list, isAdded, true);
      return response.json();
    }
    if (status !== 401 && status !== 404 && !isTemporary(status)) throw await errorOf(`${action}()`, response);
  }
  client.decide(list, isAdded, false);
  source.restart(true);
  await client.until(() => client.isReady);
  if (client.state === "closed") throw new ConnectError("closed", `${action}() refused: the client is closed.`);
  return {};
}
