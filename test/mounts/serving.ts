// What the servers of all mounts share: the broker, and the channel on which tests control it. The channel is that of the process, because a
// request for a test's own purposes would go through the framework.
import { type Broker, BrokerError, type BrokerOptions, createBroker } from "../../src/index.ts";
import type { Call, Calls, MountState, Reply } from "./protocol.ts";

export const hostname: string = process.env.HOST ?? "127.0.0.1";
export const port: number = Number(process.env.PORT);

const LATE_MS = 100;
const ended: MountState["ended"] = [];
const errors: string[] = [];
const connected = new Set<string>();

export const broker: Broker = createBroker({
  ...(JSON.parse(process.env.BROKER ?? "{}") as BrokerOptions),
  publishToken: "secret",
  // A reader whose id begins with "once-late" waits, as where a session has to be looked up.
  async authorize({ action, clientId }) {
    if (action === "publish")
      throw new BrokerError("unauthorized", "Present a token.", { headers: { "www-authenticate": "Bearer" } });
    if (clientId?.startsWith("once-late")) await new Promise((resolve) => setTimeout(resolve, LATE_MS));
    return true;
  },
  onConnect: ({ client }) => void connected.add(client.clientId),
  onDisconnect({ client, reason }) {
    connected.delete(client.clientId);
    ended.push({ clientId: client.clientId, reason });
  },
  onError: ({ stage, error }) => errors.push(`${stage}: ${String(error)}`),
});
// Routes of apps that a framework builds reach the broker here, as README.md shows it for servers that load modules again.
Object.assign(globalThis, { fanwire: broker });

const calls: { readonly [Name in keyof Calls]: (args: Calls[Name][0]) => Promise<Calls[Name][1]> } = {
  state: async () => ({ stats: broker.stats(), connected: [...connected], ended, errors }),
  async flood({ count, bytes }) {
    const pad = "x".repeat(bytes);
    for (let n = 0; n < count; n++) await broker.broadcast(`${n} ${pad}`);
    return {};
  },
  async close() {
    await broker.close();
    return {};
  },
};

/** Answers the test, and prints the URL. `stop` ends the framework's server as its users do: after the broker at SIGTERM, and alone at SIGINT. */
export function serving(stop: () => unknown): void {
  process.on("message", async ({ id, name, args }: Call) => {
    const reply: Reply = { id, result: await calls[name](args as never) };
    process.send?.(reply);
  });
  process.once("SIGTERM", async () => {
    process.disconnect?.();
    await broker.close();
    await stop();
  });
  process.once("SIGINT", async () => {
    process.disconnect?.();
    await stop();
  });
  console.log(`http://${hostname}:${port}`);
}
