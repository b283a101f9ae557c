// A client that checks the events it receives.
import type { EventSourceMessage } from "eventsource-parser";
import { SocketClient } from "../support/clients/socket-client.ts";
import type { Tally } from "./tally.ts";

/**
 * A client that knows which events have to come. Events are numbered per target (`room-1 17`). Whatever happens to the connection, each number
 * follows the one before it.
 */
export class Client {
  readonly name: string;
  /** Whether the stream has begun. */
  isReady = false;
  readonly #url: string;
  readonly #tally: Tally;
  readonly #retentionMs: number;
  readonly #last = new Map<string, number>();
  #client: SocketClient | undefined;
  #lastEventId: string | undefined;
  #leftAt = Infinity;
  /** Whether the client was away for so long that it may receive a gap. */
  #mayMissEvents = false;
  #isEnded = false;

  /** No event was published to the `targets` yet. `retentionMs` is the time for which missed events are retained. */
  constructor(url: string, tally: Tally, retentionMs: number, targets: readonly string[]) {
    this.name = url.slice(url.indexOf("?") + 1);
    this.#url = url;
    this.#tally = tally;
    this.#retentionMs = retentionMs;
    for (const target of targets) this.#last.set(target, 0);
  }

  get isConnected(): boolean {
    return this.#client !== undefined;
  }

  isReading(target: string): boolean {
    return this.#last.has(target);
  }

  /** Returns the last number received for a target. */
  last(target: string): number {
    return this.#last.get(target) ?? 0;
  }

  connect(): void {
    const isReturn = this.#lastEventId !== undefined;
    const client = new SocketClient(this.#url, isReturn ? { "last-event-id": this.#lastEventId as string } : {});
    this.#client = client;
    this.isReady = this.#isEnded = false;
    this.#tally.connects++;
    if (isReturn) this.#tally.returns++;
    const onChange = (): void => {
      if (client !== this.#client) return;
      this.#take(client);
      // The response is complete, or the socket is closed.
      if (client.ended) this.#onEnd(client);
    };
    client.socket.on("data", onChange).on("close", onChange);
  }

  /** Reads nothing for `ms` milliseconds, too short for any timeout. */
  pause(ms: number): void {
    const client = this.#client;
    client?.pause();
    setTimeout(() => client?.resume(), ms);
  }

  leave(by: "FIN" | "RST"): void {
    const client = this.#client;
    if (!client) return;
    this.#detach(client);
    if (by === "FIN" || client.socket.writableEnded) client.leave();
    else client.reset();
    if (by === "FIN") this.#tally.fins++;
    else this.#tally.resets++;
  }

  #detach(client: SocketClient): void {
    this.#take(client);
    this.#client = undefined;
    this.#lastEventId = client.lastEventId ?? this.#lastEventId;
    this.#leftAt = performance.now();
  }

  /** The server ended the stream, which it may only do with an end event. */
  #onEnd(client: SocketClient): void {
    this.#detach(client);
    client.leave();
    if (!this.#isEnded)
      this.#tally.fault(
        `${this.name}: the stream ended without fanwire-end (${client.ended}, status ${client.status})`,
      );
    this.connect();
  }

  #take(client: SocketClient): void {
    for (const event of client.events.splice(0)) this.#check(event);
  }

  #check({ event, data }: EventSourceMessage): void {
    if (event === "fanwire-ready") {
      this.#tally.answered++;
      this.isReady = true;
      this.#mayMissEvents = performance.now() - this.#leftAt > this.#retentionMs / 2;
    } else if (event === "fanwire-gap") {
      if (!this.#mayMissEvents) this.#tally.fault(`${this.name}: unexpected gap ${data}`);
      this.#last.clear();
    } else if (event === "fanwire-end") {
      this.#isEnded = true;
    } else if (!event?.startsWith("fanwire-")) {
      const [target = "", number = ""] = data.split(" ");
      const last = this.#last.get(target);
      if (last !== undefined && Number(number) !== last + 1)
        this.#tally.fault(`${this.name}: ${target} ${number} followed ${last}`);
      this.#last.set(target, Number(number));
      this.#tally.events++;
    }
  }
}
