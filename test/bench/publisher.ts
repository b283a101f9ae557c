/** Publishes to one server, on a thread of its own: beside the subscribers the answer to a publish would queue behind all their reads. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { type AudienceName, audience } from "./audience.ts";
import { clock, formatEvent } from "./event.ts";

/** How events are published. */
export interface Pattern {
  /** Publishes in flight: each connection has one, and waits for its answer. */
  readonly inFlight: number;
  /** Events per second that all of them together keep to; 0 means as fast as they are answered. */
  readonly rate: number;
}

/** Where events are published, and what they are. */
export interface Publishing {
  readonly port: number;
  readonly audience: AudienceName;
  readonly clients: number;
  /** Characters of an event's data. */
  readonly eventLength: number;
}

/** What the thread is told to do: for so many seconds, or so many events. */
export interface PublishOrder extends Pattern {
  readonly seconds: number;
  readonly events?: number;
}

/** What it did. */
export interface PublishReport {
  /** The number of the first event, and of the one that comes next. */
  readonly first: number;
  readonly end: number;
  /** By {@link clock}. */
  readonly start: number;
  /** Share of the time that the thread was busy; near 1 it is the limit, not the server. */
  readonly busy: number;
}

/** The thread, as the others see it. */
export class Publisher {
  readonly #worker: Worker;

  constructor(publishing: Publishing) {
    this.#worker = new Worker(new URL(import.meta.url), { workerData: publishing });
  }

  async publish(order: PublishOrder): Promise<PublishReport> {
    const answered = once(this.#worker, "message");
    this.#worker.postMessage(order);
    return (await answered)[0];
  }
}

/** A keep-alive connection that publishes one event after another, each when the last one is answered. */
class Lane {
  readonly #socket: Socket;
  #answer = "";
  #settle: { resolve(): void; reject(error: Error): void } | undefined;

  constructor(port: number) {
    this.#socket = connect({ port, host: "127.0.0.1", noDelay: true });
    this.#socket.setEncoding("latin1");
    this.#socket.on("data", (text: string) => this.#read(text));
    this.#socket.on("error", (error) => this.#settle?.reject(error));
    this.#socket.on("close", () => this.#settle?.reject(new Error("publishing: the server closed the connection")));
  }

  publish(target: string, data: string): Promise<void> {
    this.#socket.write(
      `POST /broadcast${target} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer bench\r\ncontent-type: text/plain\r\n` +
        `content-length: ${data.length}\r\n\r\n${data}`,
    );
    return new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
  }

  #read(text: string): void {
    this.#answer += text;
    if (!isComplete(this.#answer)) return;
    const answer = this.#answer;
    this.#answer = "";
    if (/^HTTP\/1\.1 20\d/.test(answer)) this.#settle?.resolve();
    else this.#settle?.reject(new Error(`publishing: the server answered ${JSON.stringify(answer.slice(0, 200))}`));
  }
}

function isComplete(answer: string): boolean {
  const end = answer.indexOf("\r\n\r\n");
  if (end < 0) return false;
  const [, length] = /\r\ncontent-length: *(\d+)/i.exec(answer) ?? [];
  if (length !== undefined) return answer.length >= end + 4 + Number(length);
  return !/\r\ntransfer-encoding: *chunked/i.test(answer) || answer.endsWith("\r\n0\r\n\r\n");
}

function serve({ port, audience: name, clients, eventLength }: Publishing): void {
  const { target } = audience(name, clients);
  const lanes: Lane[] = [];
  let seq = 0;
  parentPort?.on("message", async (order: PublishOrder) => parentPort?.postMessage(await carryOut(order)));

  async function carryOut({ inFlight, rate, seconds, events = Infinity }: PublishOrder): Promise<PublishReport> {
    while (lanes.length < inFlight) lanes.push(new Lane(port));
    const first = seq;
    const loop = performance.eventLoopUtilization();
    const start = clock();
    const end = start + seconds * 1_000_000;
    /** When the next event is due, by the clock. */
    const due = (): number => (rate === 0 ? 0 : start + ((seq - first) * 1_000_000) / rate);
    const run = async (lane: Lane): Promise<void> => {
      let overslept = false;
      while (clock() < end && seq - first < events) {
        const ms = (due() - clock()) / 1000;
        if (ms > 0) {
          await sleep(ms);
          overslept = true;
          continue;
        }
        // What waited for the answer to the one before it is late by that, and not what our own timer fired late for.
        const time = rate === 0 || overslept ? clock() : due();
        overslept = false;
        const number = seq++;
        await lane.publish(target(number), formatEvent(number, Math.floor(time), eventLength));
      }
    };
    await Promise.all(lanes.slice(0, inFlight).map(run));
    return { first, end: seq, start, busy: performance.eventLoopUtilization(loop).utilization };
  }
}

if (!isMainThread) serve(workerData as Publishing);
