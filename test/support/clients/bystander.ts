import { expect } from "vitest";
import { expectOutput, within } from "../http/hostile-requests.ts";
import type { Stage } from "../servers/server.ts";
import type { SocketClient } from "./socket-client.ts";

const OWN = "tick ";

/** A client that is connected while others do their worst. It is told something all the time, and must miss nothing. */
export class Bystander {
  readonly #stage: Stage;
  readonly #client: SocketClient;
  readonly #before: number;
  #published = 0;

  private constructor(stage: Stage, client: SocketClient) {
    this.#stage = stage;
    this.#client = client;
    this.#before = stage.server.output.length;
  }

  static async join(stage: Stage): Promise<Bystander> {
    return new Bystander(stage, await stage.join("?id=bystander"));
  }

  /** Publishes so many events for it, one after another; each is accepted in time. */
  async tick(count = 1): Promise<void> {
    for (let n = 0; n < count; n++) {
      const { status } = await within(this.#stage.publish(`${OWN}${this.#published++}`), "an event of the bystander's");
      expect(status).toBe(200);
    }
  }

  /** Something happens to others while it is told things. */
  async during<T>(happening: Promise<T>): Promise<T> {
    let isOver = false;
    const over = (): void => {
      isOver = true;
    };
    happening.then(over, over);
    do await this.tick();
    while (!isOver);
    return happening;
  }

  /** What it was told that was not for it alone. */
  get strange(): string[] {
    return this.#client.data.filter((data) => !data.startsWith(OWN));
  }

  /** Checks that it has everything, once and in order, over the connection that it had from the beginning; and that nothing went wrong inside. */
  async expectUnharmed(): Promise<void> {
    await this.tick();
    const last = `${OWN}${this.#published - 1}`;
    const client = await within(
      this.#client.until(({ data }) => data.includes(last)),
      `${last} to the bystander`,
    );
    const own = client.data.filter((data) => data.startsWith(OWN));
    expect(own).toEqual(Array.from({ length: this.#published }, (_, n) => `${OWN}${n}`));
    expect([client.ended, client.control("ready").length, client.control("gap")]).toEqual([undefined, 1, []]);
    const { server } = this.#stage;
    expect((await this.#stage.state()).errors).toEqual([]);
    expect([server.process.exitCode, server.process.signalCode]).toEqual([null, null]);
    expectOutput(server.platform, server.output.slice(this.#before));
  }

  leave(): void {
    this.#client.leave();
  }
}
