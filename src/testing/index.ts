export { brokerCases } from "./brokers.ts";
export { engineCases } from "./engine-cases.ts";
export type { EngineCase, EngineHarness, Fault, Faults, Namespace, NamespaceOptions, Need, Undo } from "./harness.ts";
export { missing } from "./harness.ts";
