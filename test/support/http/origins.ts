// Requests as web pages of different origins make them.
import { eventRequest } from "../test-broker.ts";

export const APP_ORIGIN = "https://app.example";
export const EVIL_ORIGIN = "https://evil.test";
const ANY = "*/*";

export type HeaderFields = Readonly<Record<string, string>>;
export const get = (headers: HeaderFields, query = "", signal?: AbortSignal): Request =>
  new Request(`https://fanwire.test/connect${query}`, {
    headers: { accept: ANY, ...headers },
    ...(signal ? { signal } : {}),
  });
export const post = (headers: HeaderFields, query = "", body: string | null = "x"): Request =>
  eventRequest(body, query, { headers });
export const options = (path: string, headers: HeaderFields): Request =>
  new Request(`https://fanwire.test${path}`, { method: "OPTIONS", headers });
