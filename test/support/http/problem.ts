// Checks of error responses that came over the wire.
import { expect } from "vitest";
import type { HttpResponse } from "../clients/http-client.ts";
import type { SocketClient } from "../clients/socket-client.ts";

/** Expects a problem response (RFC 9457) that contains no internal detail. */
export function expectProblem({ status, headers, body }: HttpResponse, expected: number, code: string): void {
  expect([status, headers["content-type"], headers["cache-control"]]).toEqual([
    expected,
    "application/problem+json",
    "no-store",
  ]);
  expect(JSON.parse(body)).toEqual({
    title: code.replaceAll("-", " "),
    status,
    code,
    detail: expect.stringMatching(/./),
  });
  expect(body).not.toMatch(/inner text|Error\b|\.[jt]s:|node_modules/);
  if (status === 503) expect(Number(headers["retry-after"])).toBeGreaterThan(0);
}

/** Expects a stream that asks an EventSource to reconnect later, without an id or a status that would stop it for good. */
export function expectReconnectLater(client: SocketClient, reason: string, retry: number): void {
  expect([client.status, client.ended]).toEqual([200, "complete"]);
  expect(client.headers["content-type"]).toBe("text/event-stream; charset=utf-8");
  expect(client.headers["fanwire-client-id"]).toBeUndefined();
  expect(client.events).toEqual([
    { id: undefined, event: "fanwire-end", data: JSON.stringify({ reason, reconnect: true }) },
  ]);
  expect(client.retry).toBeGreaterThanOrEqual(retry / 2);
  expect(client.retry).toBeLessThanOrEqual(1.5 * retry);
}
