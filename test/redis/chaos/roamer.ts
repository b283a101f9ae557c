import { SocketClient } from "../../support/clients/socket-client.ts";
import type { Epochs } from "./epochs.ts";
import type { Life, Sight } from "./oracle.ts";
import { numberOf } from "./publisher.ts";
import type { Random } from "./random.ts";

/** What a client knows of the world. */
export interface Surroundings {
  /** Addresses of the instances that are up. */
  readonly instances: () => readonly string[];
  /** Publications that have begun. */
  readonly published: () => number;
  readonly epochs: Epochs;
}

/** Milliseconds to wait at the most before the next attempt. */
const PAUSE_MS = 400;

/** A client that keeps nothing but its last id, as an EventSource does, and comes back with it to any instance that is up. */
export class Roamer implements Life {
  readonly name: string;
  /** Public names, what it gets without asking included. */
  readonly channels: readonly string[];
  readonly seen: Sight[] = [];
  claim = Infinity;
  connections = 0;
  readonly #wanted: readonly string[];
  readonly #random: Random;
  readonly #around: Surroundings;
  readonly #numbers = new Set<number>();
  readonly #inbox: string;
  #lastEventId: string | undefined;
  #link: SocketClient | undefined;
  #pause: NodeJS.Timeout | undefined;
  #hasLeft = false;

  constructor(name: string, wanted: readonly string[], random: Random, around: Surroundings) {
    this.name = name;
    this.#wanted = wanted;
    this.#inbox = inboxName(name);
    this.channels = ["fanwire-common", this.#inbox, ...wanted];
    this.#random = random;
    this.#around = around;
  }

  get isReady(): boolean {
    return this.claim < Infinity;
  }

  has(number: number): boolean {
    return this.#numbers.has(number);
  }

  connect(): void {
    const { instances } = this.#around;
    const up = instances();
    if (up.length === 0) this.#later();
    if (this.#hasLeft || up.length === 0) return;
    const query = [`id=${this.name}`, ...this.#wanted.map((channel) => `channel=${channel}`)].join("&");
    const asked = this.#lastEventId;
    const by = this.#random.pick(up);
    const link = new SocketClient(`${by}/connect?${query}`, asked === undefined ? {} : { "last-event-id": asked });
    this.#link = link;
    this.connections++;
    link.socket.on("data", () => this.#take(link, asked, by));
    link.socket.on("close", () => this.#lose(link));
  }

  /** The connection breaks, by a RST or a FIN. */
  cut(how: "reset" | "leave"): void {
    const link = this.#link;
    if (link) link[how]();
  }

  stall(): void {
    this.#link?.stall();
  }

  resume(): void {
    this.#link?.resume();
  }

  leave(): void {
    this.#hasLeft = true;
    clearTimeout(this.#pause);
    this.#link?.leave();
  }

  #take(link: SocketClient, asked: string | undefined, by: string): void {
    // What was read before the connection was given up is not seen any more.
    if (link !== this.#link) return;
    for (const { event, id, data } of link.events.splice(0)) {
      // An id that is empty makes it forget.
      if (id !== undefined) this.#lastEventId = id === "" ? undefined : id;
      this.#around.epochs.see(id);
      if (!event?.startsWith("fanwire-")) {
        const number = numberOf(data);
        this.#numbers.add(number);
        this.seen.push({ type: "event", id: id ?? "", number });
      } else if (event === "fanwire-ready") {
        const { resumed } = JSON.parse(data) as { readonly resumed: boolean };
        this.seen.push({ type: "ready", asked, id, resumed, by });
        this.claim = Math.min(this.claim, this.#around.published());
      } else if (event === "fanwire-gap") {
        const gap = JSON.parse(data) as Pick<Sight & { type: "gap" }, "channels" | "after" | "through">;
        this.#around.epochs.see(gap.through);
        const channels = gap.channels.map((name) => (name === "fanwire-inbox" ? this.#inbox : name));
        this.seen.push({ type: "gap", id: id ?? "", ...gap, channels });
      }
    }
    if (link.ended || (link.status !== 0 && link.status !== 200)) link.leave();
  }

  #lose(link: SocketClient): void {
    if (link !== this.#link) return;
    this.#link = undefined;
    this.#later();
  }

  #later(): void {
    if (this.#hasLeft) return;
    this.#pause = setTimeout(() => this.connect(), this.#random.next() * PAUSE_MS);
  }
}

/** The name of an inbox where those of several recipients have to be told apart. */
export const inboxName = (id: string): string => `fanwire-inbox:${id}`;
