// Two adapters for MCP servers, over channels of a broker: an `EventStore`, so that streams continue, and a `ServerEventBus` over all processes.
import { BrokerError, quote } from "../base/errors.ts";
import { randomName } from "../base/random.ts";
import { nextTurn } from "../base/runtime.ts";
import type { Broker } from "../broker/interface.ts";
import { parsePosition } from "../event/position.ts";

/** The methods of an `EventStore`. */
export interface McpEventStore {
  storeEvent(streamId: string, message: unknown): Promise<string>;
  getStreamIdForEventId(eventId: string): Promise<string | undefined>;
  replayEventsAfter(eventId: string, to: { send(eventId: string, message: never): Promise<void> }): Promise<string>;
}

/** Returns the store of one session, whose name no other may have. An id is `<stream>.<position>`, so a replay never leaves its stream. */
export function mcpEventStore(
  broker: Pick<Broker, "broadcast" | "history">,
  session: string = randomName(20),
): McpEventStore {
  const channelOf = (stream: string): string => `mcp:${session}:${stream}`;
  const idOf = (stream: string, position: string): string => `${encodeURIComponent(stream)}.${position}`;
  const read = async (id: string, limit: number) => {
    const [, name = "", after = ""] = /^(.+)\.(.+)$/.exec(id) ?? [];
    const stream = decodeURIComponent(name);
    const page = parsePosition(after) && (await broker.history({ channels: channelOf(stream), after, limit }));
    if (page?.gaps.length === 0) return { ...page, stream };
    throw new BrokerError(
      "bad-request",
      `Stream not replayed: the events after ${quote(id)} are not retained. Start a new one.`,
    );
  };
  let last: Promise<unknown> = Promise.resolve();
  /** Runs one task after another. The SDK sends on a stream a moment after its replay: an event stored in between would be lost to the client. */
  const inTurn = <T>(task: () => Promise<T>): Promise<T> => {
    const result = last.then(task);
    last = result.catch(() => undefined).then(() => new Promise<void>(nextTurn));
    return result;
  };
  return {
    storeEvent: (stream, message) =>
      inTurn(async () => {
        const { id } = await broker.broadcast(JSON.stringify(message), { channels: channelOf(stream) });
        return idOf(stream, id);
      }),
    getStreamIdForEventId: (id) =>
      read(id, 1).then(
        ({ stream }) => stream,
        (error) => (error.status === 503 ? Promise.reject(error) : undefined),
      ),
    replayEventsAfter: (lastEventId, { send }) =>
      inTurn(async () => {
        for (let from = lastEventId; ; ) {
          const { stream, events, position, more } = await read(from, 1_000);
          for (const { id, data } of events) if (data !== "{}") await send(idOf(stream, id), JSON.parse(data) as never);
          if (!more) return stream;
          from = idOf(stream, position);
        }
      }),
  };
}

/** An event of a `ServerEventBus`, such as `resource_updated` with its URI. */
export interface McpServerEvent {
  readonly kind: string;
}
/** The methods of a `ServerEventBus`. */
export interface McpEventBus {
  publish(event: McpServerEvent): void;
  subscribe(listener: (event: never) => void): () => void;
}

/** Returns a bus: listeners of this process are called at once, and those of others by way of a channel. `onError` receives their errors. */
export function mcpEventBus(
  broker: Pick<Broker, "broadcast" | "listen">,
  { channel = "mcp-events", onError }: { readonly channel?: string; readonly onError?: (error: unknown) => void } = {},
): McpEventBus {
  const origin = randomName(12);
  const listeners = new Set<{ readonly listener: (event: never) => void }>();
  let abort: AbortController | undefined;
  const deliver = (event: unknown): void => {
    for (const { listener } of [...listeners])
      try {
        listener(event as never);
      } catch (error) {
        onError?.(error);
      }
  };
  const listen = async (signal: AbortSignal): Promise<void> => {
    for await (const item of broker.listen({ channels: channel, signal })) {
      const { from, event } = item.type === "event" ? JSON.parse(item.data) : { from: "", event: undefined };
      if (event && from !== origin) deliver(event);
      // Any list may have changed meanwhile.
      if (!event) for (const list of ["tools", "prompts", "resources"]) deliver({ kind: `${list}_list_changed` });
    }
  };
  return {
    publish(event) {
      deliver(event);
      broker
        .broadcast(JSON.stringify({ from: origin, event }), { channels: channel })
        .catch((error) => onError?.(error));
    },
    subscribe(listener) {
      const entry = { listener };
      listeners.add(entry);
      if (!abort) listen((abort = new AbortController()).signal).catch((error) => onError?.(error));
      return () => {
        if (!listeners.delete(entry) || listeners.size > 0) return;
        abort?.abort();
        abort = undefined;
      };
    },
  };
}
