// The contract between `fanwire/runs` and the place that keeps runs. A run is a sequence of events that ends. It is not a channel: it has one
// writer, its events have ids of their own, and it is kept whole until some time after its end.

/**
 * How a run ended: its producer closed it (`ended`, `failed`, `stopped`), or its lease was over before it was closed (`lost`).
 */
export type RunEnd = "ended" | "failed" | "stopped" | "lost";

/** The state of a run in its store. */
export interface RunRecord {
  /** Identifies this run among all that have had its id: 12 characters of `[0-9a-v]`. */
  readonly generation: string;
  /** Number of its events. Each has a number, from 1 on. */
  readonly events: number;
  /** Absent while the run is live. */
  readonly end?: RunEnd | undefined;
  /** Whether `requestStop` was called for it. */
  readonly isStopping: boolean;
  /** Milliseconds until its lease is over, if nothing renews it; `Infinity` once the run has ended. */
  readonly leaseMs: number;
  /** The text that was given to `start`. */
  readonly readers: string | undefined;
}

/** A part of a run. */
export interface RunPage extends RunRecord {
  /** The number of the last event in `bytes`; as `after` of the call if there is none. */
  readonly through: number;
  /** The events in their wire form, each with its id, of `formatRunEvent`. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** A run that begins. */
export interface RunStart {
  readonly generation: string;
  /** Milliseconds for which the run counts as live without `append` or `renew`. */
  readonly leaseMs: number;
  /** Milliseconds for which the run is kept after its end. */
  readonly retainMs: number;
  /** A text that is kept with the run, for its readers. */
  readonly readers: string | undefined;
}

/** Events to append, and the end of the run behind them. */
export interface RunAppend {
  /** Number of events that the run has had before. */
  readonly after: number;
  /** The wire forms of the events, without ids. May be empty if there is an end. */
  readonly texts: readonly string[];
  readonly end?: RunEnd | undefined;
}

/**
 * Keeps runs. All methods but `watch` and `close` reject with a `BrokerError`: `engine-down` if nothing was changed, `publish-outcome-unknown` if
 * it may have been. The caller repeats a call whose outcome it does not know, so each one MUST be idempotent as it says.
 *
 * A run whose lease is over MUST be ended as `lost` by the next call about it other than `append` and `renew` of its own producer, and MAY be
 * ended before. A run that has ended MUST be kept with all of its events for `retainMs`, and dropped some time after that. What is dropped early,
 * because the store was emptied, MUST be unknown as a whole.
 */
export interface RunStore {
  /**
   * Begins a run. Resolves with `false`, and changes nothing, if a live run of another generation has this id. A run with this id that has ended is
   * dropped. Idempotent for one generation, whose lease begins again.
   */
  start(id: string, run: RunStart): Promise<boolean>;
  /**
   * Appends events, and ends the run if `end` is given, all or nothing. Renews the lease. Resolves with `false`, and changes nothing, if no live
   * run has this id and generation, or if it has more events than an end says. If it has fewer events than `after`, it has lost some: resolves with
   * `false`, and MAY end the run as `lost`.
   *
   * Idempotent: events that the run has already, by their number, are not appended again (a repeated call has the same texts), and a run that has
   * ended as `end` says at just this number of events counts as success. A caller has one call under way for a run.
   */
  append(id: string, generation: string, append: RunAppend): Promise<boolean>;
  /** Renews the leases of live runs. Resolves with the state of each: `over` if no live run has this id and generation. */
  renew(runs: readonly { readonly id: string; readonly generation: string }[]): Promise<readonly RunStatus[]>;
  /**
   * Reads what follows an event, up to about `maxBytes`, and at least one event if there is one. Resolves with `undefined` for an unknown run. Events
   * that were appended before the call are included.
   */
  read(id: string, after: number, maxBytes: number): Promise<RunPage | undefined> | RunPage | undefined;
  /** Asks the producer of a live run to stop. Resolves with whether there is one. Idempotent. */
  requestStop(id: string): Promise<boolean>;
  /**
   * Calls `onChange` soon after events, an end or a request to stop were added to a run by any process, with `true` unless it is certain that nobody
   * has asked to stop. It may be called without a change. `ready` resolves when no change from then on can be missed, is `undefined` if that is so at
   * once, and rejects with `engine-down`. A store that may have missed a change later MUST call `onChange(true)`.
   */
  watch(id: string, onChange: (isStop: boolean) => void): RunWatch;
  close(): void;
}

/** A watch over the changes of a run. */
export interface RunWatch {
  readonly ready?: Promise<void> | undefined;
  /** Ends the watch. Idempotent. */
  stop(): void;
}

/** The state of a run for its producer. */
export type RunStatus = "live" | "stopping" | "over";

/** Formats the id of an event of a run. */
export const formatRunId = (generation: string, number: number): string => `${generation}-${number}`;

/**
 * Adds its id to the wire form of an event. The id stands directly before the data: some clients take it for the data that follows, and not for
 * the data before (TanStack AI).
 */
export function formatRunEvent(text: string, generation: string, number: number): string {
  const data = text.startsWith("data: ") ? 0 : text.indexOf("\ndata: ") + 1;
  return `${text.slice(0, data)}id: ${formatRunId(generation, number)}\n${text.slice(data)}`;
}
