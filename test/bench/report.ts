// Formats the results: tables, the summary of the documentation, targets, and the panels of the plot.
import type { Outcome } from "./client.ts";
import type { EventsOutcome, Phase } from "./loads/events.ts";
import type { IdleOutcome } from "./loads/idle.ts";
import type { IntakeOutcome } from "./loads/intake.ts";
import type { ReplayOutcome } from "./loads/replay.ts";
import type { Reading } from "./meter.ts";
import type { Panel } from "./plot.ts";
import type { Pattern } from "./publisher.ts";
import { cpuPerDelivery, type Figure, inPhase, p50, p99, type Results, rate } from "./results.ts";
import type { Growth, Scenario } from "./scenarios.ts";
import { table } from "./statistics.ts";
import type { Target } from "./targets.ts";

interface Column<O extends Outcome> {
  readonly head: string;
  readonly figure: Figure<O>;
  show(value: number): string;
  /** Whether the figure is also shown as a multiple of the first server's. */
  readonly isCompared?: boolean;
}

const METER_COLUMNS = [
  { head: "server busy", figure: ({ cpu, seconds }: Reading) => cpu / 1e6 / seconds, show: percent },
  { head: "client busy", figure: ({ clientBusy }: Reading) => clientBusy, show: percent },
  { head: "other load", figure: ({ elsewhere }: Reading) => elsewhere, show: percent },
] as const;

function eventColumns(index: number): Column<EventsOutcome>[] {
  const of = (figure: (phase: Phase) => number): Figure<EventsOutcome> => inPhase(index, figure);
  return [
    { head: "deliveries/s", figure: of(rate), show: thousands, isCompared: true },
    { head: "published/s", figure: of(({ published, seconds }) => published / seconds), show: fixed(0) },
    { head: "p50 ms", figure: of(p50), show: fixed(1) },
    { head: "p99 ms", figure: of(p99), show: fixed(1) },
    { head: "CPU µs each", figure: of(cpuPerDelivery), show: fixed(2) },
    ...METER_COLUMNS.map((column) => ({ ...column, figure: of(column.figure) })),
    { head: "publisher busy", figure: of(({ publisherBusy }) => publisherBusy), show: percent },
    { head: "missing", figure: of(({ missing }) => missing), show: fixed(0) },
    { head: "wrong", figure: of(({ uneven, repeated, reordered }) => uneven + repeated + reordered), show: fixed(0) },
    { head: "gaps", figure: of(({ gaps }) => gaps), show: fixed(0) },
    { head: "closed", figure: of(({ closed }) => closed), show: fixed(0) },
  ];
}

const MEMORY: Column<EventsOutcome> = { head: "MB growth", figure: ({ grown }) => grown / 1e6, show: fixed(0) };

const REPLAY: Column<ReplayOutcome>[] = [
  { head: "deliveries/s", figure: rate, show: thousands, isCompared: true },
  { head: "ms total", figure: ({ seconds }) => seconds * 1000, show: fixed(0) },
  { head: "CPU µs each", figure: cpuPerDelivery, show: fixed(2) },
  ...METER_COLUMNS,
  { head: "missing", figure: ({ missing }) => missing, show: fixed(0) },
  { head: "wrong", figure: ({ uneven }) => uneven, show: fixed(0) },
  { head: "gaps", figure: ({ gaps }) => gaps, show: fixed(0) },
];

const IDLE: Column<IdleOutcome>[] = [
  { head: "kB each", figure: ({ resident }) => resident / 1000, show: fixed(1), isCompared: true },
  { head: "kB of JavaScript", figure: ({ heap = Number.NaN }) => heap / 1000, show: fixed(1) },
  { head: "CPU ms/s", figure: ({ cpu, seconds }) => cpu / 1000 / seconds, show: fixed(1) },
  ...METER_COLUMNS,
  { head: "closed", figure: ({ closed }) => closed, show: fixed(0) },
];

const INTAKE: Column<IntakeOutcome>[] = [{ head: "events/s", figure: rate, show: thousands }, ...METER_COLUMNS];

/** Returns the results of a scenario, with one table per pattern. */
export function tables(results: Results, { name, load }: Scenario, servers: readonly string[]): string {
  const of = <O extends Outcome>(columns: readonly Column<O>[]): string => rowsOf(results, name, servers, columns);
  if (load.kind === "replay") return of(REPLAY);
  if (load.kind === "idle") return of(IDLE);
  if (load.kind === "intake") return of(INTAKE);
  const showsMemory = name === "stalled" || name === "healthy";
  return load.patterns
    .map((pattern, index) => `${describe(pattern)}\n${of([...eventColumns(index), ...(showsMemory ? [MEMORY] : [])])}`)
    .join("\n\n");
}

function rowsOf<O extends Outcome>(
  results: Results,
  scenario: string,
  servers: readonly string[],
  columns: readonly Column<O>[],
): string {
  const [first = ""] = servers;
  const heads = columns.flatMap(({ head, isCompared }) => (isCompared ? [head, `to ${first}`] : [head]));
  const rows = servers.map((server) => [
    server,
    ...columns.flatMap(({ figure, show, isCompared }) => {
      const cell = orEmpty(show)(results.median(scenario, server, figure));
      return isCompared ? [cell, multiple(results.ratio(scenario, server, first, figure))] : [cell];
    }),
  ]);
  return table([["server", ...heads], ...rows]);
}

/** Returns the table of the documentation, as Markdown. */
export function summary(results: Results, servers: readonly string[]): string {
  const [first = ""] = servers;
  const [one, eight, paced] = [0, 1, 2];
  const phase = (server: string, index: number, figure: (phase: Phase) => number): number =>
    results.median("broadcast", server, inPhase(index, figure));
  const pair = (server: string, index: number): string =>
    `${fixed(1)(phase(server, index, p50))} / ${fixed(1)(phase(server, index, p99))}`;
  const heads = [
    "",
    "one publisher, deliveries/s",
    `to ${first}`,
    "p50 / p99 ms",
    "8 in flight, deliveries/s",
    `to ${first}`,
    "p50 / p99 ms",
    "CPU µs per delivery",
    "25 events/s, p50 / p99 ms",
    "CPU µs per delivery",
    `to ${first}`,
  ];
  const rows = servers.map((server) => [
    server,
    thousands(phase(server, one, rate)),
    multiple(results.ratio("broadcast", server, first, inPhase(one, rate))),
    pair(server, one),
    thousands(phase(server, eight, rate)),
    multiple(results.ratio("broadcast", server, first, inPhase(eight, rate))),
    pair(server, eight),
    fixed(2)(phase(server, one, cpuPerDelivery)),
    pair(server, paced),
    fixed(2)(phase(server, paced, cpuPerDelivery)),
    multiple(results.ratio("broadcast", server, first, inPhase(paced, cpuPerDelivery))),
  ]);
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  return [line(heads), line(heads.map((_, index) => (index === 0 ? "---" : "--:"))), ...rows.map(line)].join("\n");
}

export function targetTable(targets: readonly Target[]): string {
  const rows = targets.map(({ text, min, max, value }) => {
    const bound = min === undefined ? `≤ ${max}` : `≥ ${min}`;
    const reached = min === undefined ? value <= (max ?? Infinity) : value >= min;
    return [
      text,
      Number.isNaN(value) ? "" : value.toFixed(2),
      bound,
      Number.isNaN(value) ? "" : reached ? "yes" : "NO",
    ];
  });
  return table([["target", "measured", "bound", "reached"], ...rows]);
}

const PANELS: Record<Growth["panel"], readonly [title: string, x: string]> = {
  clients: ["Clients (100 events/s of 120 B)", "clients"],
  channels: ["Channels of 5 clients (100 events/s in all)", "channels"],
  size: ["Event size (1,000 clients, 25 events/s)", "bytes"],
  rate: ["Publish rate (1,000 clients, 120 B)", "events/s"],
};

/** Returns the panels of the plot: the server's CPU per delivery, as one thing grows. */
export function panels(results: Results, growths: readonly Growth[], servers: readonly string[]): Panel[] {
  return (Object.keys(PANELS) as Growth["panel"][]).map((panel) => {
    const [title, x] = PANELS[panel];
    const series = servers.map((name) => ({
      name,
      points: growths
        .filter((growth) => growth.panel === panel && keepsRate(results, growth, name))
        .map((growth) => [growth.x, results.median(growth.name, name, inPhase(0, cpuPerDelivery))] as const)
        .filter(([, y]) => y > 0),
    }));
    return { title, x, y: "CPU µs per delivery", series };
  });
}

/** Whether a server kept the offered rate. If it did not, its point is left out of the line. */
function keepsRate(results: Results, { name, load }: Growth, server: string): boolean {
  const offered = load.kind === "events" ? (load.patterns[0]?.rate ?? 0) : 0;
  return (
    results.median(
      name,
      server,
      inPhase(0, ({ published, seconds }) => published / seconds),
    ) >
    0.95 * offered
  );
}

/** Formats the outcome of one run in a line, for the progress output. */
export function oneLine(outcome: Outcome): string {
  if (outcome.kind === "idle") return `${fixed(1)(outcome.resident / 1000)} kB each`;
  if (outcome.kind === "intake") return `${thousands(rate(outcome))}/s`;
  if (outcome.kind === "replay")
    return `${thousands(rate(outcome))}/s${outcome.uneven > 0 ? `, uneven ${outcome.uneven}` : ""}`;
  return outcome.phases
    .map((phase) => {
      const faults = FAULTS.filter((name) => phase[name] !== 0).map((name) => `, ${name} ${phase[name]}`);
      return `${thousands(rate(phase))}/s in ${fixed(1)(phase.p50)} ms${faults.join("")}`;
    })
    .join("; ");
}

const FAULTS = ["missing", "uneven", "repeated", "reordered", "gaps", "closed"] as const;

/** Whether events were lost or arrived twice. */
export function isWrong(outcome: Outcome): boolean {
  if (outcome.kind === "idle") return outcome.closed > 0;
  if (outcome.kind === "intake") return false;
  if (outcome.kind === "replay") return outcome.uneven + outcome.gaps > 0;
  return outcome.phases.some((phase) => FAULTS.some((name) => phase[name] !== 0));
}

function describe({ inFlight, rate }: Pattern): string {
  if (rate < 0) return "at the rate that nchan sustains";
  const publishers = inFlight === 1 ? "one publisher that waits for each answer" : `${inFlight} publishes in flight`;
  return rate > 0 ? `${rate} events/s` : publishers;
}

/** Lists the measurements in which the client or its publisher may have been the limit. */
export function clientLimits(results: Results, scenarios: readonly Scenario[], servers: readonly string[]): string[] {
  return scenarios.flatMap(({ name, load }) =>
    (load.kind === "events" ? load.patterns : []).flatMap((pattern, index) =>
      servers
        .filter((server) => results.median(name, server, inPhase(index, busiest)) > 0.9)
        .map((server) => `${name}, ${describe(pattern)}: ${server}`),
    ),
  );
}

const busiest = ({ clientBusy, publisherBusy }: Phase): number => Math.max(clientBusy, publisherBusy);

/** Returns what the client can take as a multiple of what the fastest server sent; NaN if one of them was not measured. */
export function clientHeadroom(results: Results): number {
  const intake = results.median("intake", "firehose", (outcome: IntakeOutcome) => rate(outcome));
  const sent = results.all().flatMap((outcome) => {
    if (outcome.kind === "events") return outcome.phases.map(rate);
    return outcome.kind === "replay" ? [rate(outcome)] : [];
  });
  return sent.length > 0 ? intake / Math.max(...sent) : Number.NaN;
}

function thousands(value: number): string {
  return `${Math.round(value / 1000).toLocaleString("en")} k`;
}

function percent(share: number): string {
  return `${(share * 100).toFixed(0)} %`;
}

function multiple(ratio: number): string {
  return Number.isNaN(ratio) ? "" : `${ratio.toFixed(ratio < 10 ? 2 : 1)}×`;
}

function fixed(digits: number): (value: number) => string {
  return (value) => value.toFixed(digits);
}

/** Shows nothing for a figure that was not measured. */
const orEmpty =
  (show: (value: number) => string): ((value: number) => string) =>
  (value) =>
    Number.isNaN(value) ? "" : show(value);
