// The clients under test: where each runs, what it shows to its user, and where its outcome differs from `EXPECTED`.
import type { AdapterOptions } from "./runtimes.ts";

/** Scenarios, in the order of the table in README.md, with the outcome that a client is expected to have. */
export const EXPECTED = {
  events: "all, no other",
  lines: "unchanged",
  large: "whole",
  end: "resumes",
  cut: "resumes",
  "cut inside": "resumes",
  gap: "shown",
  "max age": "resumes",
  deploy: "gap, goes on",
  barred: "stops",
} as const;
export type Scenario = keyof typeof EXPECTED;

export interface Client extends AdapterOptions {
  readonly name: string;
  /** The key of the package in `devDependencies`. A client without it comes with its runtime. */
  readonly dependency?: string;
  /** Whether the client shows `fanwire-` events. @default true */
  readonly showsControlEvents?: boolean;
  /** Creates an event that the client understands and that carries this text. */
  readonly encode?: (text: string) => { readonly type: string; readonly data: string };
  /** Outcomes that differ from `EXPECTED`. */
  readonly outcomes?: Partial<Record<Scenario, string>>;
}

const encodeSignals = (text: string): { type: string; data: string } => ({
  type: "datastar-merge-signals",
  data: JSON.stringify({ text }, undefined, 1).replaceAll(/^/gm, "signals "),
});

export const clients: readonly Client[] = [
  { name: "EventSource of Chromium", runtime: "chromium", adapter: "event-source" },
  { name: "EventSource of Deno", dependency: "deno", runtime: "deno", adapter: "event-source" },
  { name: "EventSource of undici", dependency: "undici", runtime: "node", adapter: "undici" },
  { name: "eventsource", dependency: "eventsource", runtime: "node", adapter: "eventsource" },
  {
    name: "event-source-polyfill",
    dependency: "event-source-polyfill",
    runtime: "chromium",
    adapter: "event-source-polyfill",
  },
  { name: "eventsource-client", dependency: "eventsource-client", runtime: "node", adapter: "eventsource-client" },
  { name: "eventsource-parser", dependency: "eventsource-parser", runtime: "node", adapter: "eventsource-parser" },
  {
    name: "fetch-event-source",
    dependency: "@microsoft/fetch-event-source",
    runtime: "chromium",
    adapter: "fetch-event-source",
    outcomes: { lines: "no empty first line" },
  },
  {
    name: "event-source-plus",
    dependency: "event-source-plus",
    runtime: "node",
    adapter: "event-source-plus",
    outcomes: { lines: "last line, trimmed" },
  },
  {
    name: "htmx 2 with htmx-ext-sse",
    dependency: "htmx-ext-sse",
    runtime: "chromium",
    adapter: "htmx2",
    scripts: ["htmx.org/dist/htmx.js", "htmx-ext-sse/dist/sse.js"],
    outcomes: { barred: "asks again" },
  },
  {
    name: "htmx 4 with hx-sse",
    dependency: "htmx4",
    runtime: "chromium",
    adapter: "htmx4",
    scripts: ["htmx4/dist/htmx.js", "htmx4/dist/ext/hx-sse.js"],
    outcomes: { barred: "asks again" },
  },
  {
    name: "Datastar",
    dependency: "@starfederation/datastar",
    runtime: "chromium",
    adapter: "datastar",
    showsControlEvents: false,
    encode: encodeSignals,
    outcomes: { end: "stops", gap: "hidden", "max age": "stops", deploy: "stops" },
  },
];

/** Clients as in the first example of their documentation. */
export const plainFetchEventSource: Client = {
  name: "fetch-event-source",
  runtime: "chromium",
  adapter: "fetch-event-source-plain",
};
export const plainEventSourcePlus: Client = {
  name: "event-source-plus",
  runtime: "node",
  adapter: "event-source-plus-plain",
};
