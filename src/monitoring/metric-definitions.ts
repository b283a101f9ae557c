import { STATUS } from "../base/errors.ts";
import { DISCONNECT_REASONS } from "../delivery/connection.ts";
import type { BrokerStats } from "./stats.ts";

/** One thing that `stats()` says, as those who collect such things know it. */
export interface MetricDefinition {
  /** As Prometheus knows it, without `fanwire_` before it. One that ends in `_total` only goes up. Never changed: dashboards and alerts are made of it. */
  readonly name: string;
  readonly help: string;
  read(stats: BrokerStats): number | Readonly<Record<string, number>>;
  /** What tells those of one name apart, and each that there is. */
  readonly label?: string;
  readonly values?: readonly string[];
}

export const BROKER_METRICS: readonly MetricDefinition[] = [
  { name: "clients", help: "Connections.", read: (stats) => stats.clients },
  { name: "client_ids", help: "Client ids that are connected.", read: (stats) => stats.ids },
  { name: "blocked_clients", help: "Clients that do not take what is for them.", read: (stats) => stats.blocked },
  { name: "closing_clients", help: "Clients that have not read their end yet.", read: (stats) => stats.closing },
  { name: "channels", help: "Channels and inboxes that are read.", read: (stats) => stats.channels },
  { name: "events_published_total", help: "Events published here.", read: (stats) => stats.published },
  { name: "events_sent_total", help: "Events sent to clients.", read: (stats) => stats.sent },
  { name: "events_replayed_total", help: "Events sent to clients from the log.", read: (stats) => stats.replayed },
  { name: "sent_bytes_total", help: "Bytes of events and gaps sent to clients.", read: (stats) => stats.bytes },
  { name: "gaps_total", help: "Gaps told to clients.", read: (stats) => stats.gaps },
  { name: "overruns_total", help: "Clients overrun by the log while catching up.", read: (stats) => stats.overruns },
  {
    name: "disconnects_total",
    help: "Connections that ended.",
    read: (stats) => stats.disconnects,
    label: "reason",
    values: DISCONNECT_REASONS,
  },
  // One that was not used yet must not wake anybody.
  { name: "engine_up", help: "Whether events can be published.", read: (stats) => (stats.engine === "down" ? 0 : 1) },
  { name: "log_events", help: "Events of the log held here.", read: (stats) => stats.log.events },
  { name: "log_size_bytes", help: "Bytes of the log held here.", read: (stats) => stats.log.bytes },
  { name: "log_channels", help: "Channels of the log held here.", read: (stats) => stats.log.channels },
];

/** Those of who answers requests, which need not be where the log is. */
export const HTTP_METRICS: readonly MetricDefinition[] = [
  { name: "pending_requests", help: "Requests that wait for authorize.", read: (stats) => stats.pending },
  {
    name: "failures_total",
    help: "Requests refused or failed.",
    read: (stats) => stats.failures,
    label: "code",
    values: Object.keys(STATUS),
  },
];

/**
 * The values of a reading, each with its label's. All are there from the start, because a series that begins with its first count hides that
 * one; and no others, so that nobody can make series.
 */
export function samplesOf(
  { read, values }: MetricDefinition,
  stats: BrokerStats,
): readonly (readonly [string, number])[] {
  const found = read(stats);
  return typeof found === "number" ? [["", found]] : (values ?? []).map((value) => [value, found[value] ?? 0]);
}
