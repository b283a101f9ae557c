import type { EventSourceMessage } from "eventsource-parser";
import { SocketClient } from "../support/clients/socket-client.ts";
import type { Tally } from "./tally.ts";

/**
 * A client that knows what has to come. Events are numbered for each target they are published to (`room-1 17`); whatever happens to
 * its connection, each number comes after the one before it.
 */
export class Visitor {
  readonly name: string;
  /** Its answer has begun. */
  isReady = false;
  readonly #url: string;
  readonly #tally: Tally;
  readonly #retention: number;
  readonly #last = new Map<string, number>();
  #client: SocketClient | undefined;
  #lastEventId: string | undefined;
  #leftAt = Infinity;
  /** It was away for so long that it may be told of a gap. */
  #wasLong = false;
  #isDismissed = false;

  /** `targets` have had no event yet. `retention` is for how many milliseconds what it misses is kept. */
  constructor(url: string, tally: Tally, retention: number, targets: readonly string[]) {
    this.name = url.slice(url.indexOf("?") + 1);
    this.#url = url;
    this.#tally = tally;
    this.#retention = retention;
    for (const target of targets) this.#last.set(target, 0);
  }

  get isConnected(): boolean {
    return this.#client !== undefined;
  }

  follows(target: string): boolean {
    return this.#last.has(target);
  }

  /** The last number it has seen of a target. */
  last(target: string): number {
    return this.#last.get(target) ?? 0;
  }

  connect(): void {
    const isReturn = this.#lastEventId !== undefined;
    const client = new SocketClient(this.#url, isReturn ? { "last-event-id": this.#lastEventId as string } : {});
    this.#client = client;
    this.isReady = this.#isDismissed = false;
    this.#tally.connects++;
    if (isReturn) this.#tally.returns++;
    const look = (): void => {
      if (client !== this.#client) return;
      this.#take(client);
      // Its answer is complete, or its socket is closed.
      if (client.ended) this.#lose(client);
    };
    client.socket.on("data", look).on("close", look);
  }

  /** Reads nothing for a while, shorter than anybody would notice. */
  pause(ms: number): void {
    const client = this.#client;
    client?.stall();
    setTimeout(() => client?.resume(), ms);
  }

  leave(how: "FIN" | "RST"): void {
    const client = this.#client;
    if (!client) return;
    this.#part(client);
    if (how === "FIN" || client.socket.writableEnded) client.leave();
    else client.reset();
    if (how === "FIN") this.#tally.polite++;
    else this.#tally.resets++;
  }

  #part(client: SocketClient): void {
    this.#take(client);
    this.#client = undefined;
    this.#lastEventId = client.lastEventId ?? this.#lastEventId;
    this.#leftAt = performance.now();
  }

  /** The server has ended it, which it may only with a word. */
  #lose(client: SocketClient): void {
    this.#part(client);
    client.leave();
    if (!this.#isDismissed)
      this.#tally.fault(`${this.name}: its stream ended (${client.ended}, status ${client.status})`);
    this.connect();
  }

  #take(client: SocketClient): void {
    for (const event of client.events.splice(0)) this.#see(event);
  }

  #see({ event, data }: EventSourceMessage): void {
    if (event === "fanwire-ready") {
      this.#tally.answered++;
      this.isReady = true;
      this.#wasLong = performance.now() - this.#leftAt > this.#retention / 2;
    } else if (event === "fanwire-gap") {
      if (!this.#wasLong) this.#tally.fault(`${this.name}: a gap, ${data}`);
      this.#last.clear();
    } else if (event === "fanwire-end") {
      this.#isDismissed = true;
    } else if (!event?.startsWith("fanwire-")) {
      const [target = "", number = ""] = data.split(" ");
      const last = this.#last.get(target);
      if (last !== undefined && Number(number) !== last + 1)
        this.#tally.fault(`${this.name}: after ${target} ${last} came ${number}`);
      this.#last.set(target, Number(number));
      this.#tally.events++;
    }
  }
}
