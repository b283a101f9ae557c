import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { parentPort, workerData } from "node:worker_threads";
import { clock, EVENT_LENGTH, formatEvent } from "./event.ts";

// A thread of its own: in the subscribers' thread the answer to one publish would queue behind the reads of all of them.

/** How events are published. */
export interface Pattern {
  /** Publishes in flight: each connection has one, and waits for its answer. */
  readonly inFlight: number;
  /** Events per second that all of them together keep to; 0 means as fast as they are answered. */
  readonly rate: number;
}

/** What the thread is told to do. */
export interface PublishOrder extends Pattern {
  readonly seconds: number;
}

/** What it did. */
export interface PublishReport {
  readonly published: number;
  /** By {@link clock}. */
  readonly start: number;
}

const HEAD =
  "POST /broadcast HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer bench\r\ncontent-type: text/plain\r\n" +
  `content-length: ${EVENT_LENGTH}\r\n\r\n`;

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

  publish(data: string): Promise<void> {
    this.#socket.write(HEAD + data);
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

const lanes: Lane[] = [];
let seq = 0;

async function carryOut({ inFlight, rate, seconds }: PublishOrder): Promise<PublishReport> {
  while (lanes.length < inFlight) lanes.push(new Lane(workerData.port));
  const first = seq;
  const start = clock();
  const end = start + seconds * 1_000_000;
  /** Milliseconds until the next event is due. */
  const wait = (): number => (rate === 0 ? 0 : (start + ((seq - first) * 1_000_000) / rate - clock()) / 1000);
  const run = async (lane: Lane): Promise<void> => {
    while (clock() < end) {
      const ms = wait();
      if (ms > 0) await sleep(ms);
      else await lane.publish(formatEvent(seq++, clock()));
    }
  };
  await Promise.all(lanes.slice(0, inFlight).map(run));
  return { published: seq - first, start };
}

parentPort?.on("message", async (order: PublishOrder) => parentPort?.postMessage(await carryOut(order)));
