import type { AudienceName } from "./audience.ts";
import type { Load } from "./client.ts";
import type { EventsLoad } from "./loads/events.ts";
import type { Pattern } from "./publisher.ts";
import type { Technology } from "./technologies.ts";

/** One load, and the servers that it is put on. */
export interface Scenario {
  readonly name: string;
  readonly title: string;
  /** The load; {@link SUSTAINED} stands in it for what nchan sustained in this round. */
  readonly load: Load;
  takes(technology: Technology): boolean;
}

/** A rate that is not known yet: about as many events per second as nchan took from one publisher without end. */
export const SUSTAINED = -1;
/** Clients that never read, where there are any. */
export const STALLED = 200;
/** More than Linux holds of one connection in both its ends. */
const FILLING = 12_000_000;

const ONE: Pattern = { inFlight: 1, rate: 0 };
const EIGHT: Pattern = { inFlight: 8, rate: 0 };
const PACED: Pattern = { inFlight: 1, rate: 25 };

const everybody = ({ kind }: Technology): boolean => kind === "fanwire" || kind === "peer";
/** Those that know channels and keep what was published. */
const brokers = ({ kind, name }: Technology): boolean => kind === "fanwire" || name === "nginx, nchan";
const PLOTTED = ["fanwire, Bun", "fanwire, Deno", "fanwire, Node, hono", "fanwire, Node, srvx", "nginx, nchan"];
const plotted = ({ name }: Technology): boolean => PLOTTED.includes(name);
const fanwire = ({ kind }: Technology): boolean => kind === "fanwire";
/** Those that hold 10,000 connections; workerd resets some before there are so many. */
const holders = (technology: Technology): boolean =>
  (technology.kind === "bare" || everybody(technology)) && technology.file !== "workerd.ts";

/** All loads; each measured phase takes so many seconds after a warm-up. */
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
      load: load(1_000, [ONE, EIGHT, PACED]),
      takes: everybody,
    },
    {
      name: "equal",
      title: "1,000 subscribers, events of 120 B, at the rate that nchan sustains",
      load: load(1_000, [{ inFlight: 1, rate: SUSTAINED }]),
      takes: brokers,
    },
    {
      name: "own",
      title:
        "1,000 subscribers with ids and three channels each (two shared, one own), 1 % of the events for one of them",
      load: load(1_000, [ONE, EIGHT], { audience: "own" }),
      takes: fanwire,
    },
    {
      name: "large",
      title: "1,000 subscribers, events of 4 kB",
      load: load(1_000, [ONE, EIGHT], { eventLength: 4_096 }),
      takes: everybody,
    },
    {
      name: "many",
      title: "5,000 subscribers, events of 120 B",
      load: load(5_000, [ONE, EIGHT]),
      takes: everybody,
    },
    {
      name: "channel",
      title: "one channel of 5 subscribers",
      load: load(5, [{ inFlight: 1, rate: 200 }], { audience: "channels 1" }),
      takes: brokers,
    },
    {
      name: "channels",
      title: "1,000 channels of 5 subscribers, events to each in turn",
      load: load(5_000, [{ inFlight: 1, rate: 200 }], { audience: "channels 1000" }),
      takes: brokers,
    },
    {
      name: "healthy",
      title: "1,800 subscribers who read (to compare with the next)",
      load: load(1_800, [ONE], { filling: FILLING }),
      takes: brokers,
    },
    {
      name: "stalled",
      title: "1,800 subscribers who read, and 200 who never do",
      load: load(1_800, [ONE], { stalled: STALLED, filling: FILLING }),
      takes: brokers,
    },
    {
      name: "replay",
      title: "500 clients that come back at once, each to 1,000 events",
      load: { kind: "replay", clients: 500, events: 1_000, eventLength: 120 },
      takes: brokers,
    },
    {
      name: "idle",
      title: "10,000 connections to which nothing is published",
      load: { kind: "idle", clients: 10_000, seconds: 16 },
      takes: holders,
    },
    {
      name: "intake",
      title: "what the counting client takes in, of a server that does nothing but send",
      load: { kind: "intake", clients: 1_000, eventLength: 120, seconds },
      takes: ({ kind }) => kind === "firehose",
    },
  ];
}

/** One point of the plot: a load, and where it stands. */
export interface Growth extends Scenario {
  readonly panel: "clients" | "channels" | "size" | "rate";
  readonly x: number;
}

/** Loads that differ in one thing each, for the plot. */
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
    takes: plotted,
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
