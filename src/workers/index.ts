export type { DurableEngineOptions } from "../engines/durable.ts";
export { durableEngine } from "../engines/durable.ts";
export type { Hub, HubOptions, ObjectNamespace, WorkerOptions } from "./hub.ts";
export { hub, worker } from "./hub.ts";
export { BrokerObject, brokerObject } from "./object.ts";
export type { ObjectOptions } from "./room.ts";
