// The export `fanwire/engine`: everything that the author of an engine needs. See engine/README.md.
export type { ErrorCode } from "./base/errors.ts";
export { BrokerError } from "./base/errors.ts";
export { ExpiringMap } from "./base/expiring-map.ts";
export type { StoredLog } from "./engine/create-log.ts";
export { createEpoch, createLog, restoreLog } from "./engine/create-log.ts";
export type {
  AppendResult,
  Engine,
  EngineListener,
  EngineSession,
  HistoryHost,
  HistoryLoader,
  PeerCommand,
  Presence,
  PresenceResult,
  PresenceStore,
  ReplayPage,
  StoredEvent,
  StreamAnswer,
  StreamRequest,
  StreamTarget,
} from "./engine/engine.ts";
export { historyLoader } from "./engine/history-loader.ts";
export type { IdempotencyWindow } from "./engine/idempotency.ts";
export { createIdempotencyWindow, eventFingerprint } from "./engine/idempotency.ts";
export { readHistoryBounds, readLast, readPage } from "./engine/read-log.ts";
export type {
  RunAppend,
  RunEnd,
  RunPage,
  RunRecord,
  RunStart,
  RunStatus,
  RunStore,
  RunWatch,
} from "./engine/run-store.ts";
export { formatRunEvent } from "./engine/run-store.ts";
export type { Position } from "./event/position.ts";
export { formatPosition, parsePosition } from "./event/position.ts";
export type { ChannelLog, Entry } from "./log/channel-log.ts";
export type { Log, LogListener, LogStorageListener } from "./log/log.ts";
export type { ChannelOptions, LogOptions, Retention } from "./log/log-options.ts";
export type { ChannelBounds, HistoryBounds, MaxReplay } from "./log/resume.ts";
export { sendEphemeral } from "./log/transient.ts";
export type {
  Checkpoint,
  FeedEvent,
  SharedHistoryBounds,
  SharedLog,
  SharedLogListener,
  SharedLogSession,
} from "./shared-log/shared-log.ts";
export { sharedLogEngine } from "./shared-log/shared-log-engine.ts";
