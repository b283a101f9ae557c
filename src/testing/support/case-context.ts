// Runs the body of a case: opens a log, gives the case processes, brokers and clients on it, and closes all of them afterwards.
import { createBroker } from "../../broker/broker.ts";
import type { Broker } from "../../broker/interface.ts";
import type { BrokerOptions } from "../../broker/options.ts";
import {
  type EngineCase,
  type EngineHarness,
  type Fault,
  type Faults,
  missingNeeds,
  type Namespace,
  type NamespaceOptions,
  type Need,
} from "../harness.ts";
import { retryWhileDown, toCaseError } from "./expectation.ts";
import { type ConnectOptions, StreamClient } from "./stream-client.ts";
import { TestProcess } from "./test-process.ts";

/** Milliseconds that a case waits, unless the harness says otherwise. */
const DEFAULT_TIMEOUT_MS = 30_000;

/** The log of a running case, and everything that the case opened on it. */
export class CaseContext {
  readonly timeout: number;
  readonly #namespace: Namespace;
  readonly #openAnother: () => Promise<CaseContext>;
  readonly #others: CaseContext[] = [];
  readonly #processes = new Set<TestProcess>();
  readonly #brokers: Broker[] = [];
  readonly #clients: StreamClient[] = [];

  private constructor(namespace: Namespace, timeout: number, openAnother: () => Promise<CaseContext>) {
    this.#namespace = namespace;
    this.timeout = timeout;
    this.#openAnother = openAnother;
  }

  static async open(harness: EngineHarness, options: NamespaceOptions): Promise<CaseContext> {
    const namespace = await harness.open(options);
    return new CaseContext(namespace, harness.timeout ?? DEFAULT_TIMEOUT_MS, () => CaseContext.open(harness, options));
  }

  /** Opens another log. */
  async openAnother(): Promise<CaseContext> {
    const other = await this.#openAnother();
    this.#others.push(other);
    return other;
  }

  /** Starts a process that subscribes to these channels. Faults count processes from 0, in this order. */
  async startProcess(...keys: readonly string[]): Promise<TestProcess> {
    const started = new TestProcess(this.#namespace.engine(), this.timeout);
    this.#processes.add(started);
    await started.waitUntilUp();
    if (keys.length > 0) await started.subscribe(...keys);
    return started;
  }

  /** Starts a process with a broker, which publishes a first event. */
  async startBroker(options: BrokerOptions = {}): Promise<Broker> {
    const broker = createBroker({ ...options, engine: this.#namespace.engine() });
    this.#brokers.push(broker);
    await retryWhileDown(this.timeout, "a broker's first event", () => broker.broadcast("a first event"));
    return broker;
  }

  /** Connects a client, and waits for `fanwire-ready`. */
  async connect(broker: Broker, options: ConnectOptions = {}): Promise<StreamClient> {
    const client = await this.request(broker, options);
    await client.waitForControl("ready");
    return client;
  }

  /** Requests a stream, which the broker may refuse. */
  async request(broker: Broker, options: ConnectOptions = {}): Promise<StreamClient> {
    const client = await StreamClient.connect(broker, options, this.timeout);
    this.#clients.push(client);
    return client;
  }

  /** Returns the function of the harness that causes a fault. */
  fault<F extends Fault>(name: F): Faults[F] {
    const { faults } = this.#namespace;
    const fault = faults?.[name];
    if (!fault)
      throw new Error(`The harness: expected its namespace to have the fault "${name}" that it offers, saw none.`);
    return fault.bind(faults) as Faults[F];
  }

  /** Closes one process. */
  closeProcess(closing: TestProcess): void {
    this.#processes.delete(closing);
    closing.close();
  }

  /** Closes everything. */
  async close(): Promise<void> {
    for (const client of this.#clients) await client.leave();
    for (const broker of this.#brokers) await broker.close();
    for (const each of this.#processes) each.close();
    for (const other of this.#others) await other.close();
    await this.#namespace.close();
  }
}

/** The options of the log of a case, and the needs of the case. */
export interface CaseOptions extends NamespaceOptions {
  readonly needs?: readonly Need[];
}

/** Creates a case. It fails if its body rejects, or if anything that it opened cannot be closed. */
export function defineCase(
  id: string,
  title: string,
  { needs, ...options }: CaseOptions,
  body: (context: CaseContext) => Promise<void>,
): EngineCase {
  const result: EngineCase = {
    id,
    title,
    ...(needs ? { needs } : {}),
    async run(harness: EngineHarness): Promise<void> {
      const missing = missingNeeds(result, harness);
      if (missing.length > 0)
        throw new Error(`Case ${id}: expected a harness that offers ${missing.join(", ")}, saw none.`);
      let failed: Error | undefined;
      const attempt = (step: () => Promise<void>): Promise<void> =>
        step().catch((error: unknown) => {
          failed ??= toCaseError(id, error);
        });
      await attempt(async () => {
        const context = await CaseContext.open(harness, options);
        await attempt(() => body(context));
        await context.close();
      });
      if (failed) throw failed;
    },
  };
  return result;
}
