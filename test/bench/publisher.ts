// Publishes to one server, on a thread of its own: on the thread of the subscribers, the answer to a publish would wait behind all their reads.
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { type AudienceName, audience } from "./audience.ts";
import { clock, formatEvent } from "./event.ts";

/** How events are published. */
export interface Pattern {
  /** Publishes in flight. Each has a connection of its own, and waits for its answer before the next event. */
  readonly inFlight: number;
  /** Events per second of all connections together. 0 means as fast as they are answered. */
  readonly rate: number;
}

/** Where events are published, and their length. */
export interface PublisherOptions {
  readonly port: number;
  readonly audience: AudienceName;
  readonly clients: number;
  /** Characters of an event's data. */
  readonly eventLength: number;
}

/** A task of the thread: publishes for some seconds, or some events. */
export interface PublishTask extends Pattern {
  readonly seconds: number;
  readonly events?: number;
}

/** The result of a task. */
export interface PublishResult {
  /** The number of the first event, and the one after the last. */
  readonly first: number;
  readonly end: number;
  /** Start time, by {@link clock}. */
  readonly start: number;
  /** Share of the time in which the thread was busy. Near 1 the publisher is the limit, not the server. */
  readonly busy: number;
}

/** The thread, as seen from the main thread. */
export class Publisher {
  readonly #worker: Worker;

  constructor(publishing: PublisherOptions) {
    this.#worker = new Worker(new URL(import.meta.url), { workerData: publishing });
  }

  async publish(task: PublishTask): Promise<PublishResult> {
    const answered = once(this.#worker, "message");
    this.#worker.postMessage(task);
    return (await answered)[0];
  }
}

/** A keep-alive connection that publishes one event after another. */
class PublisherConnection {
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

function serve({ port, audience: name, clients, eventLength }: PublisherOptions): void {
  const { target } = audience(name, clients);
  const connections: PublisherConnection[] = [];
  let seq = 0;
  parentPort?.on("message", async (task: PublishTask) => parentPort?.postMessage(await runTask(task)));

  async function runTask({ inFlight, rate, seconds, events = Infinity }: PublishTask): Promise<PublishResult> {
    while (connections.length < inFlight) connections.push(new PublisherConnection(port));
    const first = seq;
    const loop = performance.eventLoopUtilization();
    const start = clock();
    const end = start + seconds * 1_000_000;
    /** Returns the time at which the next event is due. */
    const due = (): number => (rate === 0 ? 0 : start + ((seq - first) * 1_000_000) / rate);
    const run = async (connection: PublisherConnection): Promise<void> => {
      let hasSlept = false;
      while (clock() < end && seq - first < events) {
        const ms = (due() - clock()) / 1000;
        if (ms > 0) {
          await sleep(ms);
          hasSlept = true;
          continue;
        }
        // An event that waited for the answer to the previous one is late by that. A late timer of ours does not count.
        const time = rate === 0 || hasSlept ? clock() : due();
        hasSlept = false;
        const number = seq++;
        await connection.publish(target(number), formatEvent(number, Math.floor(time), eventLength));
      }
    };
    await Promise.all(connections.slice(0, inFlight).map(run));
    return { first, end: seq, start, busy: performance.eventLoopUtilization(loop).utilization };
  }
}

if (!isMainThread) serve(workerData as PublisherOptions);
