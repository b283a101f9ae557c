export { BrokerObject, brokerObject } from "./broker-object.ts";
export type { Hub, HubOptions, WorkerOptions } from "./hub.ts";
export { hub, worker } from "./hub.ts";
export type { ObjectNamespace } from "./object-backend.ts";
export type { ObjectOptions } from "./object-broker.ts";
export type { DurableEngineOptions } from "./sqlite-engine.ts";
export { durableEngine } from "./sqlite-engine.ts";
