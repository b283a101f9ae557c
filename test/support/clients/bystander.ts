// A healthy client that must miss nothing while a test attacks its broker with other clients.
import { expect } from "vitest";
import { expectCleanOutput, within } from "../http/hostile-requests.ts";
import type { TestBroker } from "../servers/server.ts";
import type { SocketClient } from "./socket-client.ts";

/** The beginning of the data of the bystander's own events. */
const PREFIX = "tick ";

export class Bystander {
  readonly #broker: TestBroker;
  readonly #client: SocketClient;
  /** The length of the server's output before the bystander connected. */
  readonly #outputStart: number;
  #published = 0;

  private constructor(broker: TestBroker, client: SocketClient) {
    this.#broker = broker;
    this.#client = client;
    this.#outputStart = broker.server.output.length;
  }

  static async join(broker: TestBroker): Promise<Bystander> {
    return new Bystander(broker, await broker.join("?id=bystander"));
  }

  /** Publishes events for the bystander, one after another. Each must be accepted in time. */
  async tick(count = 1): Promise<void> {
    for (let n = 0; n < count; n++) {
      const { status } = await within(
        this.#broker.publish(`${PREFIX}${this.#published++}`),
        "the publishing of a bystander's event",
      );
      expect(status).toBe(200);
    }
  }

  /** Publishes events for the bystander until `attack` settles. */
  async during<T>(attack: Promise<T>): Promise<T> {
    let isSettled = false;
    const onSettled = (): void => {
      isSettled = true;
    };
    attack.then(onSettled, onSettled);
    do await this.tick();
    while (!isSettled);
    return attack;
  }

  /** The data of received events that are not the bystander's own. */
  get unexpectedData(): string[] {
    return this.#client.data.filter((data) => !data.startsWith(PREFIX));
  }

  /**
   * Expects that the bystander has received all of its events, once and in order, over its first connection, and that neither the broker nor
   * the server reports an error.
   */
  async expectHealthy(): Promise<void> {
    await this.tick();
    const last = `${PREFIX}${this.#published - 1}`;
    const client = await within(
      this.#client.until(({ data }) => data.includes(last)),
      `the delivery of ${last} to the bystander`,
    );
    const own = client.data.filter((data) => data.startsWith(PREFIX));
    expect(own).toEqual(Array.from({ length: this.#published }, (_, n) => `${PREFIX}${n}`));
    expect([client.ended, client.control("ready").length, client.control("gap")]).toEqual([undefined, 1, []]);
    const { server } = this.#broker;
    expect((await this.#broker.state()).errors).toEqual([]);
    expect([server.process.exitCode, server.process.signalCode]).toEqual([null, null]);
    expectCleanOutput(server.platform, server.output.slice(this.#outputStart));
  }

  leave(): void {
    this.#client.leave();
  }
}
