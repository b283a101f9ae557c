export { brokerCases } from "./cases/brokers.ts";
export { engineCases } from "./cases/index.ts";
export type { EngineCase, EngineHarness, Fault, Faults, Namespace, NamespaceOptions, Need, Undo } from "./harness.ts";
export { missing } from "./harness.ts";
