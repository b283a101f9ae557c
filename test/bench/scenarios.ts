// The loads, and the servers that each load is put on.
import type { AudienceName } from "./audience.ts";
import type { Load } from "./client.ts";
import type { EventsLoad } from "./loads/events.ts";
import type { Pattern } from "./publisher.ts";
import type { Technology } from "./technologies.ts";

/** A load, and the servers that it applies to. */
export interface Scenario {
  readonly name: string;
  readonly title: string;
  /** The load. {@link SUSTAINED} stands for the rate that nchan sustained in this round. */
  readonly load: Load;
  appliesTo(technology: Technology): boolean;
}

/** Placeholder of a rate: about as many events per second as nchan accepted from one publisher. */
export const SUSTAINED = -1;
/** Clients that never read, in loads with such clients. */
export const STALLED_CLIENTS = 200;
/** Bytes that are more than Linux queues at both ends of one connection. */
const FILL_BYTES = 12_000_000;

const ONE_PUBLISHER: Pattern = { inFlight: 1, rate: 0 };
const EIGHT_IN_FLIGHT: Pattern = { inFlight: 8, rate: 0 };
const PACED: Pattern = { inFlight: 1, rate: 25 };

const isBrokerOrPeer = ({ kind }: Technology): boolean => kind === "fanwire" || kind === "peer";
/** Servers that have channels and keep published events. */
const isBroker = ({ kind, name }: Technology): boolean => kind === "fanwire" || name === "nginx, nchan";
const PLOTTED = ["fanwire, Bun", "fanwire, Deno", "fanwire, Node", "fanwire, Node, hono", "nginx, nchan"];
const isPlotted = ({ name }: Technology): boolean => PLOTTED.includes(name);
const isFanwire = ({ kind }: Technology): boolean => kind === "fanwire";
/** Servers that hold 10,000 connections; workerd resets some before there are so many. */
const holdsManyConnections = (technology: Technology): boolean =>
  (technology.kind === "bare" || isBrokerOrPeer(technology)) && technology.file !== "workerd.ts";

/** Returns all loads. Each measured phase takes `seconds`, after a warm-up. */
export function scenarios(seconds: number, warmup: number): readonly Scenario[] {
  const load = (
    clients: number,
    patterns: readonly Pattern[],
    { audience = "all" as AudienceName, eventLength = 120, stalled = 0, filling = 0 } = {},
  ): EventsLoad => ({ kind: "events", clients, audience, stalled, filling, eventLength, warmup, seconds, patterns });
  return [
    {
      name: "broadcast",
      title: "1,000 subscribers, events of 120 B",
      load: load(1_000, [ONE_PUBLISHER, EIGHT_IN_FLIGHT, PACED]),
      appliesTo: isBrokerOrPeer,
    },
    {
      name: "equal",
      title: "1,000 subscribers, events of 120 B, at the rate that nchan sustains",
      load: load(1_000, [{ inFlight: 1, rate: SUSTAINED }]),
      appliesTo: isBroker,
    },
    {
      name: "own",
      title:
        "1,000 subscribers with ids and three channels each (two shared, one own), 1 % of the events for one of them",
      load: load(1_000, [ONE_PUBLISHER, EIGHT_IN_FLIGHT], { audience: "own" }),
      appliesTo: isFanwire,
    },
    {
      name: "large",
      title: "1,000 subscribers, events of 4 kB",
      load: load(1_000, [ONE_PUBLISHER, EIGHT_IN_FLIGHT], { eventLength: 4_096 }),
      appliesTo: isBrokerOrPeer,
    },
    {
      name: "many",
      title: "5,000 subscribers, events of 120 B",
      load: load(5_000, [ONE_PUBLISHER, EIGHT_IN_FLIGHT]),
      appliesTo: isBrokerOrPeer,
    },
    {
      name: "channel",
      title: "one channel of 5 subscribers",
      load: load(5, [{ inFlight: 1, rate: 200 }], { audience: "channels 1" }),
      appliesTo: isBroker,
    },
    {
      name: "channels",
      title: "1,000 channels of 5 subscribers, events to each in turn",
      load: load(5_000, [{ inFlight: 1, rate: 200 }], { audience: "channels 1000" }),
      appliesTo: isBroker,
    },
    {
      name: "healthy",
      title: "1,800 subscribers that read, for comparison with stalled",
      load: load(1_800, [ONE_PUBLISHER], { filling: FILL_BYTES }),
      appliesTo: isBroker,
    },
    {
      name: "stalled",
      title: "1,800 subscribers that read, and 200 that never do",
      load: load(1_800, [ONE_PUBLISHER], { stalled: STALLED_CLIENTS, filling: FILL_BYTES }),
      appliesTo: isBroker,
    },
    {
      name: "replay",
      title: "500 clients that come back at once, each to 1,000 missed events",
      load: { kind: "replay", clients: 500, events: 1_000, eventLength: 120 },
      appliesTo: isBroker,
    },
    {
      name: "idle",
      title: "10,000 connections without events",
      load: { kind: "idle", clients: 10_000, seconds: 16 },
      appliesTo: holdsManyConnections,
    },
    {
      name: "intake",
      title: "how many events the client can count, from a server that only sends",
      load: { kind: "intake", clients: 1_000, eventLength: 120, seconds },
      appliesTo: ({ kind }) => kind === "firehose",
    },
  ];
}

/** One point of the plot: a load, and its place. */
export interface Growth extends Scenario {
  readonly panel: "clients" | "channels" | "size" | "rate";
  readonly x: number;
}

/** Returns the loads of the plot, which differ in one thing each. */
export function growths(seconds: number, warmup: number): readonly Growth[] {
  const point = (
    panel: Growth["panel"],
    x: number,
    { clients = 1_000, audience = "all" as AudienceName, eventLength = 120, rate = 100 },
  ): Growth => ({
    name: `${panel} ${x}`,
    title: `${panel}: ${x}`,
    panel,
    x,
    load: {
      kind: "events",
      clients,
      audience,
      stalled: 0,
      eventLength,
      warmup,
      seconds,
      patterns: [{ inFlight: 1, rate }],
    },
    appliesTo: isPlotted,
  });
  return [
    ...[10, 100, 1_000, 5_000].map((clients) => point("clients", clients, { clients })),
    ...[1, 10, 100, 1_000].map((count) =>
      point("channels", count, { clients: 5 * count, audience: `channels ${count}` }),
    ),
    ...[120, 1_000, 4_000, 16_000, 60_000].map((eventLength) => point("size", eventLength, { eventLength, rate: 25 })),
    ...[10, 40, 160, 640, 2_560].map((rate) => point("rate", rate, { rate })),
  ];
}
