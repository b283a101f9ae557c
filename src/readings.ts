import { DISCONNECT_REASONS } from "./client.ts";
import { STATUS } from "./errors.ts";
import type { BrokerStats } from "./stats.ts";

/** One thing that `stats()` says, as those who collect such things know it. */
export type Reading = readonly [
  /** As Prometheus knows it, without `fanwire_` before it. One that ends in `_total` only goes up. Never changed: dashboards and alerts are made of it. */
  name: string,
  help: string,
  read: (stats: BrokerStats) => number | Readonly<Record<string, number>>,
  /** What tells those of one name apart, and each that there is. */
  label?: string,
  values?: readonly string[],
];

export const READINGS: readonly Reading[] = [
  ["clients", "Connections.", (stats) => stats.clients],
  ["recipients", "Client ids that are connected.", (stats) => stats.recipients],
  ["blocked_clients", "Clients that do not take what is for them.", (stats) => stats.blocked],
  ["departing_clients", "Clients that have not read their end yet.", (stats) => stats.departing],
  ["channels", "Channels and inboxes that are read.", (stats) => stats.channels],
  ["events_published_total", "Events published here.", (stats) => stats.published],
  ["events_handed_total", "Events handed to clients.", (stats) => stats.handed],
  ["events_replayed_total", "Events handed to clients from the log.", (stats) => stats.replayed],
  ["handed_bytes_total", "Bytes of events and gaps handed to clients.", (stats) => stats.bytes],
  ["gaps_total", "Gaps told to clients.", (stats) => stats.gaps],
  ["overruns_total", "Clients overrun by the log while catching up.", (stats) => stats.overruns],
  ["disconnects_total", "Connections that ended.", (stats) => stats.disconnects, "reason", DISCONNECT_REASONS],
  // One that was not used yet must not wake anybody.
  ["engine_up", "Whether events can be published.", (stats) => (stats.engine === "down" ? 0 : 1)],
  ["log_events", "Events of the log held here.", (stats) => stats.log.events],
  ["log_size_bytes", "Bytes of the log held here.", (stats) => stats.log.bytes],
  ["log_channels", "Channels of the log held here.", (stats) => stats.log.channels],
];

/** Those of who answers requests, which need not be where the log is. */
export const OF_FACE: readonly Reading[] = [
  ["pending_requests", "Requests that wait for authorize.", (stats) => stats.pending],
  ["failures_total", "Requests refused or failed.", (stats) => stats.failures, "code", Object.keys(STATUS)],
];

/**
 * The values of a reading, each with its label's. All are there from the start, because a series that begins with its first count hides that
 * one; and no others, so that nobody can make series.
 */
export function samplesOf([, , read, , values]: Reading, stats: BrokerStats): readonly (readonly [string, number])[] {
  const found = read(stats);
  return typeof found === "number" ? [["", found]] : (values ?? []).map((value) => [value, found[value] ?? 0]);
}
