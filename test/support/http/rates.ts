// Tools for tests of the option `rate`: a clock that stands still, and who a request counts for.
import { vi } from "vitest";
import type { Authorize } from "../../../src/index.ts";

/** Stops the broker's clock. Returns a function that lets milliseconds pass. */
export function stopClock(start = 1_234.567): (ms: number) => void {
  let time = start;
  vi.spyOn(performance, "now").mockImplementation(() => time);
  return (ms) => {
    time += ms;
  };
}

/** Grants everything, with the subject of the header `x-subject`. */
export const bySubject: Authorize = ({ request, clientId, channels }) => ({
  subject: request.headers.get("x-subject") ?? undefined,
  clientId,
  channels,
  everybody: true,
});
/** Returns the address that a proxy has put into a header. */
export const byAddress = (request: Request): string | null => request.headers.get("x-real-ip");
/** Header fields of a request of this subject. */
export const as = (subject: string): Record<string, string> => ({ "x-subject": subject });
/** Header fields of a request from this address. */
export const from = (address: string): Record<string, string> => ({ "x-real-ip": address });
