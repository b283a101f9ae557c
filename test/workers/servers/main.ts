// The Worker of these tests: tests call hub() themselves, in its isolate.
import { createRuns, type Runs } from "../../../src/runs/index.ts";
import { BrokerObject, type ObjectOptions } from "../../../src/workers/index.ts";
import { optionsOf } from "../support/options.ts";

/** The class of all objects under test. Its options are the ones that the test set for its id. */
export class Hub extends BrokerObject {
  override readonly options: ObjectOptions = optionsOf((this.ctx as unknown as { id: { toString(): string } }).id);
  readonly runs: Runs = createRuns(this);

  /** Serves runs below `/runs/`, and stops one on DELETE. */
  override async fetch(request: Request): Promise<Response> {
    const [, room, id = ""] = new URL(request.url).pathname.split("/");
    if (room !== "runs") return super.fetch(request);
    if (request.method === "DELETE") return Response.json({ stopped: await this.runs.stop(id) });
    return this.runs.response(id, request);
  }
}

export default {
  fetch(): Response {
    return new Response("This Worker serves no requests: tests call hub() themselves", { status: 501 });
  },
};
