// One Redis server for the tests of a file. What a test opens there is closed after it, and its keys are deleted.
import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll } from "vitest";
import { type Broker, type BrokerOptions, createBroker } from "../../../src/index.ts";
import { type RedisEngineOptions, redisEngine } from "../../../src/redis/index.ts";
import { type RedisServer, startRedis } from "../../support/servers/redis.ts";
import { Peer } from "./peer.ts";

/** Far longer than any command takes, also among thousands on a busy machine. Tests of timeouts have their own. */
const COMMAND_TIMEOUT_MS = 60_000;

type PeerOptions = ConstructorParameters<typeof Peer>[1];

/** A server, and what a test has opened on it. */
export interface UsedRedis {
  /** Present while a test runs. */
  readonly server: RedisServer;
  /** Returns the other end of a session. */
  peer(options?: PeerOptions): Peer;
  /** Returns a peer that has its commands and its feed. */
  join(options?: PeerOptions): Promise<Peer>;
  connect(): Redis;
  /** Returns a broker on a client of its own. */
  open(engine?: Partial<RedisEngineOptions>, options?: BrokerOptions): Broker;
}

/** Starts a server before the tests of the `describe` that calls this, and stops it after them. */
export function useRedis(): UsedRedis {
  let server: RedisServer;
  const undo: (() => unknown)[] = [];
  beforeAll(async () => {
    server = await startRedis();
  });
  afterAll(() => server.stop());
  afterEach(async () => {
    for (const each of undo.splice(0).reverse()) await each();
    await server.command("FLUSHALL");
  });

  const used: UsedRedis = {
    get server() {
      return server;
    },
    peer(options = {}) {
      const peer = new Peer(server.port, { commandTimeout: COMMAND_TIMEOUT_MS, ...options });
      undo.push(() => peer.close());
      return peer;
    },
    async join(options) {
      const peer = used.peer(options);
      await peer.ready();
      return peer;
    },
    connect() {
      const client = new Redis(server.port, "127.0.0.1");
      undo.push(() => client.disconnect());
      return client;
    },
    open(engine = {}, options = {}) {
      const client = used.connect();
      const broker = createBroker({
        engine: redisEngine({ client, prefix: "test", commandTimeout: COMMAND_TIMEOUT_MS, ...engine }),
        ...options,
      });
      undo.push(() => broker.close({ force: true }));
      return broker;
    },
  };
  return used;
}
