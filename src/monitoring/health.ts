import { BrokerError } from "../base/errors.ts";
import type { Core } from "../broker/core.ts";
import { respondToMonitor } from "./endpoint.ts";

/**
 * Looks whether a broker takes work. One that was not used before opens its engine for that: nobody else can say whether it is there.
 *
 * @throws {@link BrokerError} `closed`, `engine-down`
 */
export function checkHealth(core: Pick<Core, "checkOpen" | "open" | "reportError">): void {
  core.checkOpen();
  let state: "up" | "down" | undefined = "down";
  try {
    ({ state } = core.open());
  } catch (error) {
    void core.reportError("engine", error);
  }
  if (state === "down") throw new BrokerError("engine-down", "Nothing can be published now.");
}

/** Says that all is well if `check` does not throw. */
export const respondWithHealth = (request: Request, check: () => unknown): Promise<Response> =>
  respondToMonitor(request, "application/json", async () => {
    await check();
    return '{"status":"up"}';
  });
