// The export `fanwire/engine/testing`: the contract of an engine, as cases for any test runner. See README.md.
export { brokerCases } from "./cases/brokers.ts";
export { engineCases } from "./cases/index.ts";
export type { EngineCase, EngineHarness, Fault, Faults, Namespace, NamespaceOptions, Need, Undo } from "./harness.ts";
export { missingNeeds } from "./harness.ts";
