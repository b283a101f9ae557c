// Prints how fast the client's parser is beside eventsource-parser. Run it with `node test/clients/parser-speed.ts`; no test judges the figures.
import { createParser as createReference } from "eventsource-parser";
import { createParser } from "../../src/client/parser.ts";

/** A round takes a millisecond or so, and the fastest one of many counts: a machine that is busy interrupts the others. */
const EVENTS = 20_000;
const ROUNDS = 150;
/** Bytes of a chunk, as a socket gives them. */
const CHUNK = 16_384;

const streams: Record<string, string> = {
  "events of fanwire": text((n) => `event: price\ndata: {"ada":0.${n},"from":"exchange"}\nid: 9f2k-${n}\n\n`),
  "only data": text((n) => `data: {"choices":[{"delta":{"content":"word ${n}"}}]}\n\n`),
  "five lines": text((n) => `data: one ${n}\ndata: two\ndata: three\ndata: four\ndata: five\nid: ${n}\n\n`),
  "large events": text((n) => `id: 9f2k-${n}\ndata: ${"x".repeat(2_000)}\n\n`),
  CRLF: text((n) => `event: price\r\ndata: {"ada":0.${n}}\r\nid: 9f2k-${n}\r\n\r\n`),
};

function text(event: (n: number) => string): string {
  return Array.from({ length: EVENTS }, (_, n) => event(n)).join("");
}

/** Cuts a stream as a client receives it: decoded, each chunk a text of its own. */
function chunksOf(stream: string): string[] {
  const bytes = new TextEncoder().encode(stream);
  const decoder = new TextDecoder();
  return Array.from({ length: Math.ceil(bytes.length / CHUNK) }, (_, n) =>
    decoder.decode(bytes.subarray(n * CHUNK, (n + 1) * CHUNK), { stream: true }),
  );
}

function ours(chunks: readonly string[]): number {
  let events = 0;
  const parser = createParser(() => void events++);
  for (const chunk of chunks) parser.feed(chunk);
  return events;
}

function reference(chunks: readonly string[]): number {
  let events = 0;
  const parser = createReference({ onEvent: () => void events++ });
  for (const chunk of chunks) parser.feed(chunk);
  return events;
}

function time(run: (chunks: readonly string[]) => number, chunks: readonly string[]): number {
  const begin = performance.now();
  if (run(chunks) !== EVENTS) throw new Error("Measuring a parser: it lost events.");
  return performance.now() - begin;
}

for (const [name, stream] of Object.entries(streams)) {
  const chunks = chunksOf(stream);
  const times = { ours: [] as number[], reference: [] as number[] };
  // In turn, so that both see the same machine.
  for (let round = 0; round < ROUNDS; round++) {
    times.ours.push(time(ours, chunks));
    times.reference.push(time(reference, chunks));
  }
  const [mine, other] = [Math.min(...times.ours), Math.min(...times.reference)];
  console.log(
    `${name}: ${mine.toFixed(2)} ms, eventsource-parser ${other.toFixed(2)} ms: ${(other / mine).toFixed(2)} ×`,
  );
}
