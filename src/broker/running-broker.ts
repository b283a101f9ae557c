// A broker with an open engine: its fan-out, its connections and its publisher.

import type { ErrorReporter } from "../base/error-reporter.ts";
import { BrokerError, type ErrorStage } from "../base/errors.ts";
import { DeliveryReports } from "../delivery/delivery-report.ts";
import { Fanout } from "../delivery/fanout.ts";
import type { FlushTiming } from "../delivery/flush-scheduler.ts";
import { Listener } from "../delivery/listener.ts";
import { remoteHistoryBounds, resolveResumePoint, type StartOptions } from "../log/resume.ts";
import type { ConnectionLimits } from "./connection-limits.ts";
import { ConnectionRegistry } from "./connection-registry.ts";
import type { Settings } from "./options.ts";
import { Publisher } from "./publisher.ts";

/** The parts that exist before the engine is open. */
export interface BrokerContext {
  readonly settings: Settings;
  readonly limits: ConnectionLimits;
  readonly errors: ErrorReporter;
  readonly timing: FlushTiming | undefined;
  readonly isClosed: boolean;
  /** @throws {@link BrokerError} `closed` */
  checkOpen(): void;
}

export class RunningBroker {
  readonly settings: Settings;
  readonly fanout: Fanout;
  readonly registry: ConnectionRegistry;
  readonly publisher: Publisher;
  readonly #context: BrokerContext;

  /** Opens the engine. */
  constructor(context: BrokerContext) {
    const { settings, errors, timing } = context;
    const reportError = (stage: ErrorStage, error: unknown): void => void errors.report(stage, error);
    this.#context = context;
    this.settings = settings;
    this.fanout = new Fanout(
      settings.engine,
      {
        onAppended: (entry) => reports.onAppended(entry),
        onOverrun: () =>
          reportError(
            "overrun",
            new Error("More was published at once than logBytes holds; raise logBytes or publish slower."),
          ),
        onCommand: (command) => this.registry.onCommand(command),
        onRequest: async (request) => this.registry.requests.run(request),
        onError: (error) => {
          // `stats().engine` shows that the engine is away, and the engine has reported why; each failed attempt says no more.
          if (!(error instanceof BrokerError && error.code === "engine-down")) reportError("engine", error);
        },
      },
      timing,
    );
    const reports = new DeliveryReports(this.fanout, settings.timeout);
    this.registry = new ConnectionRegistry(context, this.fanout);
    this.publisher = new Publisher(settings, this.fanout, reports, this.registry.knownClients);
  }

  listen(keys: readonly string[], start: StartOptions, signal: AbortSignal | undefined): Listener {
    const { fanout } = this;
    const { session } = fanout;
    session.log.checkChannels(keys);
    const lookUp = session.historyBounds?.bind(session);
    return new Listener(
      {
        fanout,
        historyBounds: () => remoteHistoryBounds(session.log, lookUp, keys, start, {}),
        resolveResumePoint: (channels, bounds) => resolveResumePoint(session.log, channels, start, {}, bounds),
        isClosed: () => this.#context.isClosed,
      },
      keys,
      signal,
    );
  }
}
