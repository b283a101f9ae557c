// The types of events by their names: the arguments of a typed broker, and the events of its pages. Types only.
import type { EventMap, EventName, StandardSchema } from "../client/events.ts";
import type { EventInput } from "./event.ts";

/** Schemas by event type. */
export type EventSchemas = Readonly<Record<string, StandardSchema>>;

type TypesOf<Schema extends StandardSchema> = NonNullable<Schema["~standard"]["types"]>;
/** The input types of schemas: the data that is published. */
export type SchemaInputs<Schemas extends EventSchemas> = { [Name in keyof Schemas]: TypesOf<Schemas[Name]>["input"] };
/** The output types of schemas: the data that is sent. */
export type SchemaOutputs<Schemas extends EventSchemas> = { [Name in keyof Schemas]: TypesOf<Schemas[Name]>["output"] };

/** Schemas for a map of events. For a broker without types: any. */
export type SchemasFor<Events> = unknown extends Events
  ? EventSchemas
  : { readonly [Name in EventName<Events>]-?: StandardSchema<Events[Name], Events[Name]> };

/** An event of a map without its position, discriminated by `event`. An event without a type is `message`. */
type EnvelopeOf<Inputs> = {
  [Name in EventName<Inputs>]-?: {
    readonly data: Inputs[Name];
    readonly retry?: number;
  } & (Name extends "message" ? { readonly event?: Name } : { readonly event: Name });
}[EventName<Inputs>];

/** Text or bytes that need no envelope. */
type BareOf<Inputs> = Inputs extends { readonly message: infer Data }
  ? Extract<Data, string | Uint8Array | ArrayBuffer>
  : never;

/** The argument of `broadcast`: an event of the map; for a broker without types, any event. */
export type EventInputOf<Inputs> = unknown extends Inputs ? EventInput : EnvelopeOf<Inputs> | BareOf<Inputs>;

/** Something that has events. The member is for types only, and never there. */
interface HasEvents<Events, Inputs> {
  readonly "~events"?: EventTypes<Events, Inputs> | undefined;
}

/** The types of published and received data, by event type. */
export interface EventTypes<Events, Inputs> {
  readonly output: Events;
  readonly input: Inputs;
}

/**
 * The events of a broker, a hub or an object, by type, as they are read. A page imports only this type of the server.
 *
 * @example
 * export type Events = EventsOf<typeof broker>; // on the server
 * import type { Events } from "../server.ts"; // in the page
 * const client = connect<Events>("/connect");
 */
export type EventsOf<Source> =
  Source extends HasEvents<infer Events, unknown> ? (unknown extends Events ? EventMap : Events) : never;

/** The same as they are published: what the schemas take. @example publisher<EventInputsOf<typeof broker>>("/broadcast") */
export type EventInputsOf<Source> =
  Source extends HasEvents<unknown, infer Inputs> ? (unknown extends Inputs ? EventMap : Inputs) : never;
