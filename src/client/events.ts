// The items of a client: published events, and events of the stream itself. Types only.
import type { ConnectError } from "./connect-error.ts";

/** One block of a stream, as it was sent: an event, or only an id. */
export interface Block {
  /** The event type; `message` if the block names none. */
  readonly type: string;
  /** The data. `undefined` if the block has none: then it is no event, and only its id counts. */
  readonly data: string | undefined;
  /** The id of this block. `undefined` if it has none; empty if it resets the last id. */
  readonly id: string | undefined;
}

/** An event that somebody published. */
export interface PublishedEvent<Name extends string = string, Value = unknown> {
  readonly type: "event";
  /** The event type; `message` for an event that has none. */
  readonly event: Name;
  /** The id. `undefined` for an ephemeral event, an event of a snapshot, and one for this connection alone. */
  readonly id: string | undefined;
  /** The data, exactly as it was sent. */
  readonly data: string;
  /**
   * The output of the schema of this type. Without a schema: the parsed data if it is JSON, and else the text. So a *text* that is JSON,
   * such as "42", comes as a number: give its type a schema, or read `data`.
   */
  readonly value: Value;
}

/** Events are missing from these channels: those after `after`, up to `through`. Load the state of the channels again. */
export interface GapEvent {
  readonly type: "gap";
  /** `fanwire-common` stands for events to every client, and `fanwire-inbox` for events to this client. */
  readonly channels: readonly string[];
  /** `null` if the log is another one: any earlier event may be missing too. */
  readonly after: string | null;
  readonly through: string;
}

/** The end of a snapshot: the state of these channels is complete. */
export interface SnapshotEvent {
  readonly type: "snapshot";
  readonly channels: readonly string[];
  /** `new` and `gap`: the state of the channels came in place of their events. `joined`: the channels were added. */
  readonly reason: string;
  /** The position of the state. */
  readonly id: string | undefined;
}

/** The server has ended the stream on purpose. */
export interface EndEvent {
  readonly type: "end";
  /** Such as `closing`, `max-age`, `expired`, `disconnected` or `replaced`; `no-content` after an answer with status 204. */
  readonly reason: string;
  /** Whether the client comes back. With `false` it is closed. */
  readonly reconnect: boolean;
  /** The application's reason. */
  readonly detail: string | undefined;
}

/** `connecting`: a request is under way; `open`: events can come; `waiting`: for the next attempt, or to be online; `closed`: for good. */
export type ClientState = "connecting" | "open" | "waiting" | "closed";

/** The state of the stream has changed. */
export interface StateEvent {
  readonly type: "state";
  readonly state: ClientState;
  /** Milliseconds until the next attempt; `undefined` if it waits for the page to be shown or online, and in other states. */
  readonly retryIn: number | undefined;
  /** Why the last attempt or the last connection failed, if it did. */
  readonly error: unknown;
}

/** A map of event types to their values: `{ price: { ada: number } }`. Events without a type are of type `message`. */
// biome-ignore lint/suspicious/noExplicitAny: an interface without an index signature has to match, too.
export type EventMap = Record<string, any>;

/** The names of published events in a map. */
export type EventName<Events> = keyof Events & string;

/** A published event of a map, discriminated by `event`. */
export type EventOf<Events> = { [Name in EventName<Events>]: PublishedEvent<Name, Events[Name]> }[EventName<Events>];

/** An item of an iterator, discriminated by `type`. */
export type ClientItem<Events> = EventOf<Events> | GapEvent | SnapshotEvent | EndEvent;

/** Events of the stream itself, by the name of their handlers. */
export interface StreamEvents {
  gap: GapEvent;
  snapshot: SnapshotEvent;
  end: EndEvent;
  state: StateEvent;
  error: ConnectError;
}

/**
 * The argument of a handler of `type`. The five names of {@link StreamEvents} mean the stream. Published events that have one of these names
 * reach iterators only.
 */
export type Handled<Events, Type> = Type extends keyof StreamEvents
  ? StreamEvents[Type]
  : Type extends EventName<Events>
    ? PublishedEvent<Type, Events[Type]>
    : never;

/** The types that a handler can have. */
export type HandledType<Events> = keyof StreamEvents | EventName<Events>;

/** A schema of any library that follows Standard Schema 1 (https://standardschema.dev), such as zod, valibot or arktype. */
export interface StandardSchema<Output = unknown, Input = unknown> {
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => SchemaResult<Output> | Promise<SchemaResult<Output>>;
    readonly types?: { readonly input: Input; readonly output: Output } | undefined;
  };
}

/** The answer of a schema. */
export type SchemaResult<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: readonly SchemaIssue[] };

/** A fault that a schema has found. */
interface SchemaIssue {
  readonly message: string;
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
}
