// The public names of `fanwire/client`.
export type { EventClient } from "./client.ts";
export { connect } from "./connect.ts";
export { ConnectError } from "./connect-error.ts";
export type {
  ClientItem,
  ClientState,
  EndEvent,
  EventMap,
  EventName,
  EventOf,
  GapEvent,
  Handled,
  HandledType,
  PublishedEvent,
  SchemaResult,
  SnapshotEvent,
  StandardSchema,
  StateEvent,
  StreamEvents,
} from "./events.ts";
export type { ConnectOptions, HeaderFields } from "./options.ts";
export {
  BatchError,
  type BatchEvent,
  type PublishAnswer,
  type Publishable,
  type Publisher,
  type PublisherOptions,
  type PublishOptions,
  publisher,
} from "./publisher.ts";
