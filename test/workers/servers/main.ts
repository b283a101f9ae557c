// The Worker of these tests: tests call hub() themselves, in its isolate.
import { BrokerObject, type ObjectOptions } from "../../../src/workers/index.ts";
import { optionsOf } from "../support/options.ts";

/** The class of all objects under test. Its options are the ones that the test set for its id. */
export class Hub extends BrokerObject {
  override readonly options: ObjectOptions = optionsOf((this.ctx as unknown as { id: { toString(): string } }).id);
}

export default {
  fetch(): Response {
    return new Response("This Worker serves no requests: tests call hub() themselves", { status: 501 });
  },
};
