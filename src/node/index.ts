// `fanwire/node`: serves a broker through Node's HTTP classes.
export { type FastifyBrokerOptions, fastifyBroker } from "./fastify.ts";
export {
  type NodeContext,
  type NodeFetch,
  type NodeHandler,
  type NodeHandlerOptions,
  nodeHandler,
  type ServedBroker,
} from "./node-handler.ts";
export type { NodeIncoming, NodeNext, NodeOutgoing } from "./types.ts";
