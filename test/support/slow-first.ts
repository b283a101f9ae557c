// The order in which the files of a run start: those that take longest first, so that none of them is left when all others are done.
import { BaseSequencer, type TestSpecification } from "vitest/node";

/** Files that take longer than their size says, by which vitest orders them otherwise. The longest first. */
const SLOW = [
  "patience/flood",
  "mounts/apps",
  "mounts/fetch",
  "mounts/node",
  "wire/slow",
  "package/event-types",
  "browser/eventsource",
  "redis/script-cost",
  "browser/cross-origin",
  "redis/chaos",
  "workers/simulation",
  "clients/clients",
  "wire/examples",
  "browser/hono",
  "wire/disconnect",
  "redis/newest",
  "clients/fanwire-client",
  "package/build",
  "redis/accounts-stress",
  "redis/owners",
  "wire/drain",
  "wire/eviction",
  "model/model",
  "redis/owners-model",
  "redis/contract",
  "log/replay-history",
  "log/owners",
  "delivery/snapshot-race",
  "engine/faulty-engines",
  "broker/bounds",
  "workers/slow-clients",
  "package/mutants",
];

const rankOf = ({ moduleId }: TestSpecification): number => {
  const rank = SLOW.findIndex((name) => moduleId.endsWith(`/${name}.test.ts`));
  return rank < 0 ? SLOW.length : rank;
};

export class SlowFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    return (await super.sort(files)).sort((a, b) => rankOf(a) - rankOf(b));
  }
}
