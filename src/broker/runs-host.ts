// The parts of a broker that `fanwire/runs` uses. A hidden member leads to them, so that a broker without runs does not load any.
import type { ErrorCode, ErrorStage } from "../base/errors.ts";
import type { EngineSession } from "../engine/engine.ts";
import type { NameRules } from "../event/name-rules.ts";
import type { HttpHandler } from "../http/handler.ts";
import type { Settings } from "./options.ts";

/** Leads from a broker, or an object that has one, to its {@link RunsHost}. */
export const RUNS_HOST: unique symbol = Symbol.for("fanwire.runs");

/** Has the {@link RunsHost} of a broker. */
export interface WithRuns {
  readonly [RUNS_HOST]: RunsHost;
}

export interface RunsHost {
  readonly core: RunsCore;
  readonly http: Pick<HttpHandler, "respond" | "authorizeConnect">;
}

/** The part of a broker that is not HTTP. */
export interface RunsCore {
  readonly settings: Settings;
  readonly names: NameRules;
  /** Requests that were refused or failed, by code. */
  readonly failures: Partial<Record<ErrorCode, number>>;
  /** @throws `BrokerError` `closed` */
  checkOpen(): void;
  /** Opens the engine if it is not open. */
  openSession(): EngineSession;
  reserve(): (() => void) | undefined;
  keepOpen(request: Request, context: unknown): void;
  reportError(stage: ErrorStage, error: unknown): Promise<void>;
  /** Functions that are called when the broker closes, which waits for them before it leaves the engine. */
  readonly onClose: Set<() => Promise<void>>;
}
