/**
 * Sends prepared events from `POST /start` until `POST /stop`, to each connection as fast as that takes them: to measure how many the
 * counting client can take in. On Bun, whose bare sockets cost less CPU than Node's for the same bytes.
 */
import { existsSync, readFileSync } from "node:fs";
import { setImmediate as turn } from "node:timers/promises";
import type { Socket } from "bun";
import { formatEvent } from "../event.ts";
import { announce, asksUsage, usage } from "../usage.ts";

/** Where in the events a connection is. */
interface Place {
  at: number;
}

const EVENT_LENGTH = Number(process.argv[2] || 120);
/** Bytes of one write. */
const CHUNK = 64 * 1024;
/**
 * Pages that wait in the kernel, at the most, about 200 MB. Full buffers of 1,000 connections would be all that the kernel has for
 * sockets, and then it takes the time that the client is to have.
 */
const AHEAD = 50_000;
const SOCKSTAT = "/proc/net/sockstat";
const hasSockstat = existsSync(SOCKSTAT);

const events = prepare(16 * CHUNK);
const sockets = new Set<Socket<Place>>();
let isOpen = false;

/** Events of so many bytes together, which are sent over and over. */
function prepare(length: number): Buffer {
  let text = "";
  for (let seq = 0; text.length < length; seq++)
    text += `id: abcdefghijkl-${seq}\ndata: ${formatEvent(seq, 0, EVENT_LENGTH)}\n\n`;
  return Buffer.from(text);
}

/** Writes as much of one chunk as the kernel takes. */
function write(socket: Socket<Place>): void {
  const { at } = socket.data;
  const written = socket.write(events, at, Math.min(CHUNK, events.length - at));
  if (written > 0) socket.data.at = (at + written) % events.length;
}

async function start(): Promise<void> {
  isOpen = true;
  const most = kernelPages() + AHEAD;
  let written = 0;
  while (isOpen) {
    await turn();
    for (const socket of sockets) {
      // Now and then, because it costs a system call; requests are answered meanwhile.
      if (written++ % 64 === 0) while (isOpen && kernelPages() > most) await turn();
      write(socket);
    }
  }
}

/** Pages in the buffers of all sockets of the machine. */
function kernelPages(): number {
  return hasSockstat ? Number(/^TCP:.* mem (\d+)/m.exec(readFileSync(SOCKSTAT, "latin1"))?.[1]) : 0;
}

function answer(socket: Socket<Place>, body: string): void {
  socket.write(`HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
}

const { port } = Bun.listen<Place>({
  hostname: "127.0.0.1",
  port: 0,
  socket: {
    open(socket) {
      socket.data = { at: 0 };
    },
    // Requests of a client that is known, each of which comes in one piece.
    async data(socket, request) {
      const [, url = ""] = request.toString("latin1").split(" ", 2);
      if (asksUsage(url)) return answer(socket, JSON.stringify(usage(url)));
      if (url.startsWith("/connect")) {
        socket.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n");
        sockets.add(socket);
        return;
      }
      answer(socket, "{}");
      if (url === "/start") await start();
      if (url === "/stop") isOpen = false;
    },
    close: (socket) => void sockets.delete(socket),
  },
});
announce(port);
