// The hooks. A component's handlers are those of its last render, and its connection is that of `shared-clients.ts`.
import { useCallback, useEffect, useInsertionEffect, useRef, useState, useSyncExternalStore } from "react";
import type { EventClient } from "../client/client.ts";
import type { ClientState, EventMap, EventName, EventOf, Handled, HandledType } from "../client/events.ts";
import { listOf } from "../client/options.ts";
import { acquire, type Lease, release } from "./shared-clients.ts";

/**
 * A source of events: the address of a stream, a client of `fanwire/client`, or `undefined` for nothing yet. Components with the same address
 * and channels share one connection, which closes when the last of them is gone. A client is left as it is.
 */
export type EventsFrom<Events> = string | URL | EventClient<Events> | undefined;

/** Which channels an address is asked for. */
export interface ChannelOptions {
  /**
   * The channels to read. Has no meaning for a client, which has channels of its own. If the list changes and some of them stay, the stream goes
   * on, and nothing of those is lost.
   * @default all that the server grants
   */
  readonly channels?: string | readonly string[] | undefined;
}

/** Options of {@link useEvents}. */
export interface UseEventsOptions<Events, Type extends HandledType<Events>> extends ChannelOptions {
  /**
   * The types to receive: published events, and what happens to the stream (`gap`, `snapshot`, `end`, `error`, `state`). Handle `gap`, or events
   * may be missing without notice. @default none, for the state alone
   */
  readonly events?: Type | readonly Type[] | undefined;
  /** Receives each event once and in order. It is always the function of the last render, so it need not be memoized. */
  readonly onEvent?: ((event: HandledOf<Events, Type>) => void) | undefined;
}

/** The argument of a handler for any of these types, discriminated by `type`, and published events by `event`. */
export type HandledOf<Events, Type> = Type extends unknown ? Handled<Events, Type> : never;

/**
 * Receives events while the component is there, and returns the state of its stream. On the server it does nothing, and the state is `connecting`.
 *
 * ```tsx
 * const state = useEvents<Events>("/connect", {
 *   channels: ["market"],
 *   events: ["price", "gap"],
 *   onEvent: (item) => (item.type === "gap" ? reload() : setPrice(item.value)),
 * });
 * ```
 *
 * @throws `TypeError` for an address that is not valid, after the first render.
 */
export function useEvents<Events = EventMap, Type extends HandledType<Events> = HandledType<Events>>(
  source: EventsFrom<Events>,
  { events, channels, onEvent }: UseEventsOptions<Events, Type>,
): ClientState {
  const home = homeOf(source);
  const wanted = keyOf(channels);
  const types = keyOf(events);
  const lease = useRef<Lease>(undefined);
  const subscribe = useCallback(
    (notify: () => void) => {
      const isUrl = typeof home === "string";
      const used = (lease.current = isUrl ? acquire(home, JSON.parse(wanted) ?? undefined, lease.current) : undefined);
      const client = (used?.client ?? home) as EventClient<EventMap> | undefined;
      const receive = (event: unknown): void => newest.current.onEvent?.(event as HandledOf<Events, Type>);
      const offs = ["state", ...((JSON.parse(types) as string[] | null) ?? [])].map((type, index) =>
        client?.on(type, index === 0 ? notify : receive),
      );
      return () => {
        for (const off of offs) off?.();
        if (used) release(used);
      };
    },
    [home, wanted, types],
  );
  const newest = useRef({ subscribe, onEvent });
  // Until the effects have run, events still come from the source of the render before, and are for its handler.
  useInsertionEffect(() => {
    if (newest.current.subscribe === subscribe) newest.current.onEvent = onEvent;
  });
  useEffect(() => {
    newest.current = { subscribe, onEvent };
  });
  const state = (): ClientState =>
    typeof home === "string" ? (lease.current?.client.state ?? "connecting") : (home?.state ?? "closed");
  return useSyncExternalStore(subscribe, state, () => "connecting");
}

/**
 * Returns the newest event of a type since the component is there; `undefined` before the first one, after another source, type or list of channels
 * was given, and on the server.
 *
 * ```tsx
 * const price = useLatest<Events, "price">("/connect", "price", { channels: "market" });
 * return <b>{price?.value.ada}</b>;
 * ```
 *
 * @throws as {@link useEvents}
 */
export function useLatest<Events = EventMap, Type extends EventName<Events> = EventName<Events>>(
  source: EventsFrom<Events>,
  type: Type,
  { channels }: ChannelOptions = {},
): EventOf<Pick<Events, Type>> | undefined {
  const home = homeOf(source);
  const key = JSON.stringify([type, keyOf(channels)]);
  const [latest, setLatest] = useState<readonly [home: unknown, key: string, event: unknown]>();
  useEvents(source, { events: type, channels, onEvent: (event) => setLatest([home, key, event]) });
  return latest?.[0] === home && latest?.[1] === key ? (latest[2] as EventOf<Pick<Events, Type>>) : undefined;
}

/** Returns a value that stays the same between renders: the text of an address, or the client. */
const homeOf = <Events>(source: EventsFrom<Events>): string | EventClient<Events> | undefined =>
  source instanceof URL ? source.href : source;

/** Returns a text that is the same for lists with the same names; "null" for none, and for an empty list. */
const keyOf = (names: string | readonly string[] | undefined): string => {
  const list = listOf(names) ?? [];
  return list.length > 0 ? JSON.stringify([...new Set(list)].sort()) : "null";
};
