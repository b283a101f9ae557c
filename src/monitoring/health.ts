// Health checks for load balancers.
import { BrokerError } from "../base/errors.ts";
import { respondToMonitor } from "./endpoint.ts";

/** The parts of a broker that a health check uses. */
export interface HealthSource {
  /** @throws {@link BrokerError} `closed` */
  checkOpen(): void;
  /** Returns the state of the engine. Opens an engine that was not used before. */
  engineState(): "up" | "down";
  reportError(stage: "engine", error: unknown): unknown;
}

/**
 * Checks whether a broker takes work: it is not closed, and its engine can append.
 *
 * @throws {@link BrokerError} `closed`, `engine-down`
 */
export function checkHealth(broker: HealthSource): void {
  broker.checkOpen();
  let state: "up" | "down" = "down";
  try {
    state = broker.engineState();
  } catch (error) {
    void broker.reportError("engine", error);
  }
  if (state === "down")
    throw new BrokerError("engine-down", "Health check failed: the engine cannot append events now.");
}

/** Answers a health check: 200 if `check` does not throw. */
export const respondWithHealth = (request: Request, check: () => unknown): Promise<Response> =>
  respondToMonitor("health", request, "application/json", async () => {
    await check();
    return '{"status":"up"}';
  });
