export type { ErrorCode, ErrorStage, EventIssue } from "./base/errors.ts";
export { BrokerError } from "./base/errors.ts";
export { createBroker } from "./broker/broker.ts";
export type {
  BroadcastOptions,
  Broker,
  CloseOptions,
  ConnectionOptions,
  DisconnectOptions,
  EphemeralOptions,
  HistoryOptions,
  ListenOptions,
  SendOptions,
  SendToOptions,
  SubscribeOptions,
  UnsubscribeOptions,
} from "./broker/interface.ts";
export type { BrokerOptions, ConnectEvent } from "./broker/options.ts";
export type { Snapshot, SnapshotEvents, SnapshotReason, SnapshotRequest } from "./broker/snapshot-run.ts";
export type { StandardSchema } from "./client/events.ts";
export type { ClientInfo, DisconnectReason, FailureReason } from "./delivery/connection.ts";
export type { DeliveryReport, Failure, Published, Reported, Sent } from "./delivery/delivery-report.ts";
export type { Engine } from "./engine/engine.ts";
export type { History } from "./engine/history.ts";
export type { MemoryEngineOptions } from "./engine/memory-engine.ts";
export { memoryEngine } from "./engine/memory-engine.ts";
export type { EventEnvelope, EventInput } from "./event/event.ts";
export type { EventInputOf, EventInputsOf, EventSchemas, EventsOf } from "./event/event-map.ts";
export type { AccessRequest, Authorize, AuthorizeResult, Grant } from "./http/authorize.ts";
export { bearer } from "./http/bearer.ts";
export type { CorsOptions } from "./http/cors.ts";
export type { BrokerPaths, ClientOverrides, EventOverrides } from "./http/handler.ts";
export { type Rate, type RateLimits, type RateOptions, rateLimits } from "./http/rate-limits.ts";
export type { Listened, ListenedEvent, ListenedEventOf, ListenedGap, ListenedOf } from "./log/listened.ts";
export type { ChannelOptions, LogOptions, Retention } from "./log/log-options.ts";
export type { MaxReplay } from "./log/resume.ts";
export type { BrokerStats } from "./monitoring/stats.ts";
