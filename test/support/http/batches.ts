// Requests with batches of events, and what they have published.
import { expect } from "vitest";
import type { Broker } from "../../../src/index.ts";
import { eventRequest } from "../test-broker.ts";

export const NDJSON = { "content-type": "application/x-ndjson" };
const textOf = (lines: readonly unknown[]): string => lines.map((line) => `${JSON.stringify(line)}\n`).join("");
/** A request with lines, or with a body as it is. */
export const batch = (
  lines: readonly unknown[] | BodyInit,
  headers: Record<string, string> = {},
  query = "",
): Request =>
  eventRequest(Array.isArray(lines) ? textOf(lines) : (lines as BodyInit), query, {
    headers: { ...NDJSON, ...headers },
  });
export const idsOf = async (response: Response): Promise<string[]> => {
  expect(response.status).toBe(200);
  const answer = (await response.json()) as { ids: string[] };
  expect(Object.keys(answer)).toEqual(["ids"]);
  return answer.ids;
};
export const history = async (broker: Broker, channels: string): Promise<string[]> =>
  (await broker.history({ channels })).events.map(({ data }) => data);
export const TOKEN = { authorization: "Bearer secret" };
export const SECRET = { publishToken: "secret" };
