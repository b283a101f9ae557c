import { type Broker, createBroker } from "../../broker/broker.ts";
import type { BrokerOptions } from "../../broker/options.ts";
import type { EngineCase, EngineHarness, Fault, Faults, Namespace, NamespaceOptions, Need } from "../harness.ts";
import { Client, type Wish } from "./client.ts";
import { asUnmet, persist } from "./expectation.ts";
import { Probe } from "./probe.ts";

/** Milliseconds that a case waits, unless the harness says otherwise. */
const PATIENCE = 30_000;

/** What a case has: a log of its own, and processes and brokers on it. All of it is taken down after the case. */
export class Stage {
  readonly patience: number;
  readonly #namespace: Namespace;
  readonly #open: () => Promise<Stage>;
  readonly #others: Stage[] = [];
  readonly #probes = new Set<Probe>();
  readonly #brokers: Broker[] = [];
  readonly #clients: Client[] = [];

  private constructor(namespace: Namespace, patience: number, open: () => Promise<Stage>) {
    this.#namespace = namespace;
    this.patience = patience;
    this.#open = open;
  }

  static async open(harness: EngineHarness, options: NamespaceOptions): Promise<Stage> {
    const namespace = await harness.open(options);
    return new Stage(namespace, harness.patience ?? PATIENCE, () => Stage.open(harness, options));
  }

  /** A stage with another log. */
  async apart(): Promise<Stage> {
    const other = await this.#open();
    this.#others.push(other);
    return other;
  }

  /** Another process, which follows these channels. */
  async probe(...keys: readonly string[]): Promise<Probe> {
    const probe = new Probe(this.#namespace.engine(), this.patience);
    this.#probes.add(probe);
    await probe.ready();
    if (keys.length > 0) await probe.subscribe(...keys);
    return probe;
  }

  /** Another process, with a broker that has published something. */
  async broker(options: BrokerOptions = {}): Promise<Broker> {
    const broker = createBroker({ ...options, engine: this.#namespace.engine() });
    this.#brokers.push(broker);
    await persist(this.patience, "a broker's first event", () => broker.broadcast("a first event"));
    return broker;
  }

  /** Connects a client and waits until it is told so. */
  async client(broker: Broker, wish: Wish = {}): Promise<Client> {
    const client = await this.request(broker, wish);
    await client.control("ready");
    return client;
  }

  /** Asks for a stream, which may be refused. */
  async request(broker: Broker, wish: Wish = {}): Promise<Client> {
    const client = await Client.connect(broker, wish, this.patience);
    this.#clients.push(client);
    return client;
  }

  /** What brings a fault about. */
  fault<F extends Fault>(name: F): Faults[F] {
    const { faults } = this.#namespace;
    const fault = faults?.[name];
    if (!fault)
      throw new Error(`The harness: expected its namespace to have the fault "${name}" that it offers, saw none.`);
    return fault.bind(faults) as Faults[F];
  }

  leave(probe: Probe): void {
    this.#probes.delete(probe);
    probe.close();
  }

  async end(): Promise<void> {
    for (const client of this.#clients) await client.leave();
    for (const broker of this.#brokers) await broker.close();
    for (const probe of this.#probes) probe.close();
    for (const other of this.#others) await other.end();
    await this.#namespace.close();
  }
}

/** How a case is set up, beside its id and title. */
export interface Setting extends NamespaceOptions {
  readonly needs?: readonly Need[];
}

/** Makes a case of what it does on its stage. */
export function caseOf(
  id: string,
  title: string,
  { needs, ...options }: Setting,
  body: (stage: Stage) => Promise<void>,
): EngineCase {
  return {
    id,
    title,
    ...(needs ? { needs } : {}),
    async run(harness: EngineHarness): Promise<void> {
      const lacks = (needs ?? []).filter((need) => !harness.offers?.includes(need));
      if (lacks.length > 0)
        throw new Error(`Case ${id}: expected a harness that offers ${lacks.join(", ")}, saw none.`);
      let failed: Error | undefined;
      const attempt = (step: () => Promise<void>): Promise<void> =>
        step().catch((error: unknown) => {
          failed ??= asUnmet(id, error);
        });
      await attempt(async () => {
        const stage = await Stage.open(harness, options);
        await attempt(() => body(stage));
        await stage.end();
      });
      if (failed) throw failed;
    },
  };
}
