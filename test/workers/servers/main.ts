import { BrokerObject, type ObjectOptions } from "../../../src/workers/index.ts";
import { optionsOf } from "../support/options.ts";

/** The object of every room; its options are those that the test gave to its id. */
export class Hub extends BrokerObject {
  override readonly options: ObjectOptions = optionsOf((this.ctx as unknown as { id: { toString(): string } }).id);
}

export default {
  fetch(): Response {
    return new Response("this worker answers no requests: tests call hub() themselves", { status: 501 });
  },
};
