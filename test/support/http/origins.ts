import { eventRequest } from "../test-broker.ts";

// Requests as pages of some origin make them.

export const APP = "https://app.example";
export const EVIL = "https://evil.test";
const ANY = "*/*";

export type Headers = Readonly<Record<string, string>>;
export const get = (headers: Headers, query = "", signal?: AbortSignal): Request =>
  new Request(`https://fanwire.test/connect${query}`, {
    headers: { accept: ANY, ...headers },
    ...(signal ? { signal } : {}),
  });
export const post = (headers: Headers, query = "", body: string | null = "x"): Request =>
  eventRequest(body, query, { headers });
export const options = (path: string, headers: Headers): Request =>
  new Request(`https://fanwire.test${path}`, { method: "OPTIONS", headers });
