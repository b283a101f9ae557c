// A client that reconnects to any instance, as an EventSource behind a load balancer does.
import { setTimeout as sleep } from "node:timers/promises";
import { SocketClient } from "../../support/clients/socket-client.ts";
import type { Random } from "../../support/random.ts";
import type { Epochs } from "./epochs.ts";
import type { ClientHistory, Observation } from "./oracle.ts";
import { numberOf } from "./publisher.ts";

/** The part of a deployment that a client needs. */
export interface ClientEnvironment {
  /** Returns the addresses of the instances that are up. */
  readonly instances: () => readonly string[];
  /** Returns how many publications have begun. */
  readonly publications: () => number;
  readonly epochs: Epochs;
  /** Returns the numbers of the publications that are acknowledged. */
  readonly acknowledged: () => readonly number[];
  /** Names of channels that a client may join. */
  readonly channels: readonly string[];
}

/** The longest time until the next attempt to connect. */
const MAX_RECONNECT_MS = 400;
/** How many of the connections join a channel while they are open, and how long that takes at most. */
const JOINING = 0.4;
const MAX_JOIN_MS = 1_500;

/** Keeps nothing between connections except its last id, and records everything that it receives. */
export class RoamingClient implements ClientHistory {
  readonly name: string;
  /** Public names of its channels, including those that every client reads. */
  readonly channels: readonly string[];
  readonly observations: Observation[] = [];
  entitledAfter = Infinity;
  connections = 0;
  readonly asked: string[] = [];
  /** How often it joined a channel. */
  joins = 0;
  readonly #requestedChannels: readonly string[];
  readonly #random: Random;
  readonly #environment: ClientEnvironment;
  readonly #numbers = new Set<number>();
  readonly #inbox: string;
  #lastEventId: string | undefined;
  #socket: SocketClient | undefined;
  #reconnectTimer: NodeJS.Timeout | undefined;
  #hasLeft = false;

  constructor(name: string, requestedChannels: readonly string[], random: Random, environment: ClientEnvironment) {
    this.name = name;
    this.#requestedChannels = requestedChannels;
    this.#inbox = inboxName(name);
    this.channels = ["fanwire-common", this.#inbox, ...requestedChannels];
    this.#random = random;
    this.#environment = environment;
  }

  get isReady(): boolean {
    return this.entitledAfter < Infinity;
  }

  /** Whether the client received a publication. */
  has(number: number): boolean {
    return this.#numbers.has(number);
  }

  connect(): void {
    const instances = this.#environment.instances();
    if (instances.length === 0) this.#reconnectLater();
    if (this.#hasLeft || instances.length === 0) return;
    const query = [`id=${this.name}`, ...this.#requestedChannels.map((channel) => `channel=${channel}`)].join("&");
    const requestedId = this.#lastEventId;
    const instance = this.#random.pick(instances);
    const headers: Record<string, string> = requestedId === undefined ? {} : { "last-event-id": requestedId };
    const socket = new SocketClient(`${instance}/connect?${query}`, headers);
    this.#socket = socket;
    this.connections++;
    socket.socket.on("data", () => this.#onData(socket, requestedId, instance));
    socket.socket.on("close", () => this.#onClose(socket));
  }

  /** Ends the connection, with a RST or a FIN. */
  cut(how: "reset" | "leave"): void {
    const socket = this.#socket;
    if (socket) socket[how]();
  }

  /** Stops reading. */
  pause(): void {
    this.#socket?.pause();
  }

  resume(): void {
    this.#socket?.resume();
  }

  leave(): void {
    this.#hasLeft = true;
    clearTimeout(this.#reconnectTimer);
    this.#socket?.leave();
  }

  #onData(socket: SocketClient, requestedId: string | undefined, instance: string): void {
    // Data of a connection that the client has given up does not count.
    if (socket !== this.#socket) return;
    for (const { event, id, data } of socket.events.splice(0)) {
      // An empty id resets the last id.
      if (id !== undefined) this.#lastEventId = id === "" ? undefined : id;
      this.#environment.epochs.note(id);
      if (!event?.startsWith("fanwire-")) {
        const number = numberOf(data);
        this.#numbers.add(number);
        this.observations.push({ type: "event", id: id ?? "", number });
      } else if (event === "fanwire-ready") {
        const { resumed, secret = "" } = JSON.parse(data) as { readonly resumed: boolean; readonly secret?: string };
        void this.#joinAndLeave(socket, secret);
        this.observations.push({ type: "ready", requestedId, id, resumed, instance });
        this.entitledAfter = Math.min(this.entitledAfter, this.#environment.publications());
      } else if (event === "fanwire-gap") {
        const gap = JSON.parse(data) as Pick<Observation & { type: "gap" }, "channels" | "after" | "through">;
        this.#environment.epochs.note(gap.through);
        const channels = gap.channels.map((name) => (name === "fanwire-inbox" ? this.#inbox : name));
        this.observations.push({ type: "gap", id: id ?? "", ...gap, channels });
      }
    }
    if (socket.ended || (socket.status !== 0 && socket.status !== 200)) socket.leave();
  }

  /** Joins a channel for a while, with requests to any instance. */
  async #joinAndLeave(socket: SocketClient, secret: string): Promise<void> {
    const random = this.#random;
    const { acknowledged, publications, channels } = this.#environment;
    const isJoining = random.next() < JOINING;
    const channel = random.pick(channels);
    const pauses = [random.next() * MAX_JOIN_MS, random.next() * MAX_JOIN_MS * 2];
    if (!isJoining || this.channels.includes(channel)) return;
    await sleep(pauses[0]);
    this.asked.push(channel);
    if (!(await this.#change("subscribe", socket, secret, channel))) return;
    this.joins++;
    this.observations.push({ type: "joined", id: undefined, channel, after: publications() });
    await sleep(pauses[1]);
    if (socket !== this.#socket) return;
    this.observations.push({ type: "leaving", id: undefined, channel, acknowledged: new Set(acknowledged()) });
    await this.#change("unsubscribe", socket, secret, channel);
  }

  /** Returns whether the stream was changed, and is still open. */
  async #change(path: string, socket: SocketClient, secret: string, channel: string): Promise<boolean> {
    const instances = this.#environment.instances();
    if (socket !== this.#socket || instances.length === 0) return false;
    try {
      const body = new URLSearchParams({ secret, channel });
      const init = { method: "POST", body, signal: AbortSignal.timeout(10_000) };
      const response = await fetch(`${this.#random.pick(instances)}/${path}`, init);
      await response.text();
      return response.status === 200 && socket === this.#socket;
    } catch {
      // The instance was killed.
      return false;
    }
  }

  #onClose(socket: SocketClient): void {
    if (socket !== this.#socket) return;
    this.#socket = undefined;
    this.#reconnectLater();
  }

  #reconnectLater(): void {
    if (this.#hasLeft) return;
    this.#reconnectTimer = setTimeout(() => this.connect(), this.#random.next() * MAX_RECONNECT_MS);
  }
}

/** Returns the name of a client's inbox. Public names do not distinguish inboxes, so the oracle needs its own. */
export const inboxName = (id: string): string => `fanwire-inbox:${id}`;
