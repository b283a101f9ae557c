// The metrics of a broker, read from `stats()`. Prometheus and OpenTelemetry export the same ones.
import { STATUS } from "../base/errors.ts";
import { DISCONNECT_REASONS } from "../delivery/connection.ts";
import type { BrokerStats } from "./stats.ts";

/** One metric. */
export interface MetricDefinition {
  /**
   * The name in Prometheus, without the prefix `fanwire_`. A metric whose name ends in `_total` is a counter, any other one a gauge. A released
   * name MUST NOT change, because dashboards and alerts refer to it.
   */
  readonly name: string;
  /** One sentence for Prometheus' `HELP` line. */
  readonly help: string;
  /** Returns the value, or with a `label` a value for each label value. */
  read(stats: BrokerStats): number | Readonly<Record<string, number>>;
  /** The name of the label. */
  readonly label?: string;
  /** Every value that the label can have. */
  readonly values?: readonly string[];
}

/** Metrics of the process, or the object, that has the log. */
export const BROKER_METRICS: readonly MetricDefinition[] = [
  { name: "clients", help: "Open connections.", read: (stats) => stats.clients },
  { name: "client_ids", help: "Client ids with an open connection.", read: (stats) => stats.ids },
  { name: "blocked_clients", help: "Connections that do not take their events.", read: (stats) => stats.blocked },
  {
    name: "closing_clients",
    help: "Connections whose end event is unread.",
    read: (stats) => stats.closing,
  },
  { name: "channels", help: "Channels and inboxes with a subscriber.", read: (stats) => stats.channels },
  { name: "events_published_total", help: "Events published here.", read: (stats) => stats.published },
  { name: "events_sent_total", help: "Events sent to connections.", read: (stats) => stats.sent },
  {
    name: "events_replayed_total",
    help: "Events sent to connections that were behind.",
    read: (stats) => stats.replayed,
  },
  { name: "sent_bytes_total", help: "Bytes of events and gaps sent to connections.", read: (stats) => stats.bytes },
  { name: "gaps_total", help: "Gaps sent to connections.", read: (stats) => stats.gaps },
  {
    name: "overruns_total",
    help: "Connections moved to the head because they could not keep up.",
    read: (stats) => stats.overruns,
  },
  {
    name: "disconnects_total",
    help: "Connections that ended, by reason.",
    read: (stats) => stats.disconnects,
    label: "reason",
    values: DISCONNECT_REASONS,
  },
  // `idle` counts as up: an unused broker must not cause an alert.
  {
    name: "engine_up",
    help: "Whether events can be published.",
    read: (stats) => (stats.engine === "down" ? 0 : 1),
  },
  { name: "log_events", help: "Events of the log held here.", read: (stats) => stats.log.events },
  { name: "log_size_bytes", help: "Bytes of the log held here.", read: (stats) => stats.log.bytes },
  { name: "log_channels", help: "Channels of the log held here.", read: (stats) => stats.log.channels },
];

/** Metrics of the process that answers requests. On Workers that is not where the log is. */
export const HTTP_METRICS: readonly MetricDefinition[] = [
  { name: "pending_requests", help: "Requests that wait for authorize.", read: (stats) => stats.pending },
  {
    name: "failures_total",
    help: "Requests refused or failed, by error code.",
    read: (stats) => stats.failures,
    label: "code",
    values: Object.keys(STATUS),
  },
];

/**
 * Returns the values of a metric, each with its label value. Every label value is present from the start, because Prometheus cannot see the
 * increase from nothing to 1. No other label value is returned, so that no request can create a series.
 */
export function samplesOf(
  { read, values }: MetricDefinition,
  stats: BrokerStats,
): readonly (readonly [string, number])[] {
  const result = read(stats);
  return typeof result === "number" ? [["", result]] : (values ?? []).map((value) => [value, result[value] ?? 0]);
}
