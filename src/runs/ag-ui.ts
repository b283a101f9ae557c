// Runs for AG-UI: the events of an agent as `HttpAgent` reads them, for the client that started it and for others that join.
import type { RunEnd } from "../engine/run-store.ts";
import type { ResponseOptions } from "./run-response.ts";
import type { Runs } from "./runs.ts";

/** The last event, by the end of the run: the client takes a stream that merely ends for a run that is finished. */
const TRAILERS: Readonly<Record<RunEnd, string>> = {
  ended: "",
  failed: 'data: {"type":"RUN_ERROR","message":"The run broke off.","code":"run-failed"}\n\n',
  stopped: 'data: {"type":"RUN_ERROR","message":"The run was stopped.","code":"run-stopped"}\n\n',
  // The body ends with an error.
  lost: "",
};

/**
 * Answers the request of an `HttpAgent` with a run of JSON events, from its start: a client refuses events without the `RUN_STARTED` before them.
 * Without such a run the answer is 404.
 *
 * @example
 * await runs.start(threadId, agent.run(input), { format: "json" });
 * return agentResponse(runs, threadId, request);
 */
export const agentResponse = (
  runs: Runs,
  id: string,
  request: Request,
  options: Pick<ResponseOptions, "headers" | "context"> = {},
): Promise<Response> => runs.response(id, request, { ...options, after: "-1", trailer: (end) => TRAILERS[end] });
