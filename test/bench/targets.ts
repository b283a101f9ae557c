// Performance targets of fanwire.
import type { EventsOutcome } from "./loads/events.ts";
import type { IdleOutcome } from "./loads/idle.ts";
import { cpuPerDelivery, cpuPerPublish, type Figure, inPhase, p50, p99, type Results, rate } from "./results.ts";
import { STALLED_CLIENTS } from "./scenarios.ts";
import { median } from "./statistics.ts";

/** A target and the measured value. */
export interface Target {
  readonly text: string;
  readonly min?: number;
  readonly max?: number;
  /** The measured value; NaN if it was not measured. */
  readonly value: number;
}

const NCHAN = "nginx, nchan";

/** Targets relative to nchan: deliveries with one publisher and with eight, and latencies and CPU of paced events. */
const BUN = { one: 12, eight: 12, p50: 1.05, p99: 1.3, cpu: 1.5 };
const DENO = { one: 8, eight: 6, p50: 1.15, p99: 3, cpu: 2 };
const NODE = { one: 5, eight: 6, p50: 1, p99: 1.3, cpu: 1.05 };
const NODE_ADAPTER = { one: 5, eight: 6, p50: 1.5, p99: 3, cpu: 2 };

export function targets(results: Results): Target[] {
  return [
    ...targetsOf(results, "fanwire, Bun", "better-sse, Bun", "bare, Bun", BUN),
    {
      text: "fanwire, Bun: kB per idle connection",
      max: 15,
      value: results.median("idle", "fanwire, Bun", resident) / 1000,
    },
    ...targetsOf(results, "fanwire, Deno", "better-sse, Deno", "bare, Deno", DENO),
    ...targetsOf(results, "fanwire, Node", "better-sse, Node", "res.write, Node", NODE),
    ...targetsOf(results, "fanwire, Node, hono", "better-sse, Node", "bare, Node, hono", NODE_ADAPTER),
    ...targetsOf(results, "fanwire, Node, srvx", "better-sse, Node", "bare, Node, srvx", NODE_ADAPTER),
  ];
}

function targetsOf(results: Results, server: string, peer: string, bare: string, nchan: typeof BUN): Target[] {
  type Pair = readonly [own: string, other: string];
  const to = (other: string, scenario: string | Pair, figure: Figure<EventsOutcome>): number =>
    results.ratio(scenario, server, other, figure);
  const [one, eight, paced] = [0, 1, 2];
  const grown = (scenario: string): number[] =>
    (results.of(scenario, server) as (EventsOutcome | undefined)[]).map((outcome) => outcome?.grown ?? Number.NaN);
  const healthy = grown("healthy");
  const held = grown("stalled").map((bytes, round) => (bytes - (healthy[round] ?? Number.NaN)) / STALLED_CLIENTS);
  const targets: Target[] = [
    {
      text: "one publisher, deliveries, to nchan",
      min: nchan.one,
      value: to(NCHAN, "broadcast", inPhase(one, rate)),
    },
    { text: "one publisher, deliveries, to better-sse", min: 10, value: to(peer, "broadcast", inPhase(one, rate)) },
    {
      text: "one publisher, median latency in ms",
      max: 15,
      value: results.median("broadcast", server, inPhase(one, p50)),
    },
    {
      text: "at the rate nchan sustains, median latency, to nchan",
      max: 1,
      value: to(NCHAN, "equal", inPhase(one, p50)),
    },
    {
      text: "8 in flight, deliveries, to nchan",
      min: nchan.eight,
      value: to(NCHAN, "broadcast", inPhase(eight, rate)),
    },
    { text: "8 in flight, median latency, to nchan", max: 1, value: to(NCHAN, "broadcast", inPhase(eight, p50)) },
    { text: "paced, median latency, to nchan", max: nchan.p50, value: to(NCHAN, "broadcast", inPhase(paced, p50)) },
    { text: "paced, p99, to nchan", max: nchan.p99, value: to(NCHAN, "broadcast", inPhase(paced, p99)) },
    {
      text: "paced, CPU per delivery, to nchan",
      max: nchan.cpu,
      value: to(NCHAN, "broadcast", inPhase(paced, cpuPerDelivery)),
    },
    {
      text: "ids and channels, one publisher, to anonymous",
      min: 0.8,
      value: to(server, ["own", "broadcast"], inPhase(one, rate)),
    },
    {
      text: "ids and channels, 8 in flight, to anonymous",
      min: 0.8,
      value: to(server, ["own", "broadcast"], inPhase(eight, rate)),
    },
    {
      text: "deliveries with stalled clients, to without",
      min: 0.95,
      value: to(server, ["stalled", "healthy"], inPhase(one, rate)),
    },
    {
      text: "kB per stalled client",
      max: 64,
      value: median(held.filter((bytes) => !Number.isNaN(bytes))) / 1000,
    },
    {
      text: "CPU for a publish with 1,000 channels, to one",
      max: 1.2,
      value: to(server, ["channels", "channel"], inPhase(one, cpuPerPublish)),
    },
    {
      text: "memory for an idle connection, to a bare stream",
      max: 1.15,
      value: results.ratio("idle", server, bare, resident),
    },
  ];
  return targets.map((target) => ({ ...target, text: `${server}: ${target.text}` }));
}

const resident = ({ resident }: IdleOutcome): number => resident;
