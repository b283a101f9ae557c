// Sends prepared events from `POST /start` until `POST /stop`, to each connection as fast as it takes them, to measure how many events the client can
// count. On Bun, whose bare sockets cost less CPU than Node's for the same bytes.
import { existsSync, readFileSync } from "node:fs";
import { setImmediate as turn } from "node:timers/promises";
import type { Socket } from "bun";
import { formatEvent } from "../event.ts";
import { announcePort, isUsageRequest, usage } from "../usage.ts";

/** The position of a connection in the prepared bytes. */
interface Cursor {
  at: number;
}

const EVENT_LENGTH = Number(process.argv[2] || 120);
/** Bytes of one write. */
const CHUNK = 64 * 1024;
/**
 * The most pages that may wait in the kernel, about 200 MB. Full buffers of 1,000 connections would use all memory that the kernel has for sockets,
 * and would then take CPU time from the client.
 */
const MAX_PAGES_AHEAD = 50_000;
const SOCKSTAT = "/proc/net/sockstat";
const hasSockstat = existsSync(SOCKSTAT);

const events = prepare(16 * CHUNK);
const sockets = new Set<Socket<Cursor>>();
let isOpen = false;

/** Prepares events of about `length` bytes together, which are sent over and over. */
function prepare(length: number): Buffer {
  let text = "";
  for (let seq = 0; text.length < length; seq++)
    text += `id: abcdefghijkl-${seq}\ndata: ${formatEvent(seq, 0, EVENT_LENGTH)}\n\n`;
  return Buffer.from(text);
}

/** Writes as much of one chunk as the kernel takes. */
function write(socket: Socket<Cursor>): void {
  const { at } = socket.data;
  const written = socket.write(events, at, Math.min(CHUNK, events.length - at));
  if (written > 0) socket.data.at = (at + written) % events.length;
}

async function start(): Promise<void> {
  isOpen = true;
  const maxPages = kernelPages() + MAX_PAGES_AHEAD;
  let written = 0;
  while (isOpen) {
    await turn();
    for (const socket of sockets) {
      // Checked only now and then, because it costs a system call. Requests are answered in between.
      if (written++ % 64 === 0) while (isOpen && kernelPages() > maxPages) await turn();
      write(socket);
    }
  }
}

/** Returns the pages in the buffers of all sockets of the machine. */
function kernelPages(): number {
  return hasSockstat ? Number(/^TCP:.* mem (\d+)/m.exec(readFileSync(SOCKSTAT, "latin1"))?.[1]) : 0;
}

function answer(socket: Socket<Cursor>, body: string): void {
  socket.write(`HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
}

const { port } = Bun.listen<Cursor>({
  hostname: "127.0.0.1",
  port: 0,
  socket: {
    open(socket) {
      socket.data = { at: 0 };
    },
    // The requests come from our own client, each in one piece.
    async data(socket, request) {
      const [, url = ""] = request.toString("latin1").split(" ", 2);
      if (isUsageRequest(url)) return answer(socket, JSON.stringify(usage(url)));
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
announcePort(port);
