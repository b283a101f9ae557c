// The export `fanwire/runs`.
export type { RunEnd } from "../engine/run-store.ts";
export type { PipeOptions, RunFormat, RunSource } from "./pipe.ts";
export type { Run, RunCloseReason, WriteOptions } from "./run.ts";
export type { ResponseOptions } from "./run-response.ts";
export type {
  ReadRunOptions,
  RunEvent,
  RunInfo,
  RunState,
  Runs,
  RunsOptions,
  StartRunOptions,
} from "./runs.ts";
export { createRuns } from "./runs.ts";
