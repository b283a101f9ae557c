// Measures the memory of runs that have ended: what each one takes beside its bytes.
import { createBroker } from "../../../src/index.ts";
import { createRuns } from "../../../src/runs/index.ts";
import { usage } from "../usage.ts";
import { tokenOf } from "./server.ts";

const RUNS = 2_000;
const TOKENS = 500;

const runs = createRuns(createBroker());
const write = async (id: string): Promise<void> => {
  const run = await runs.start(id);
  for (let index = 0; index < TOKENS; index++) await run.write(tokenOf(index));
  await run.close();
};
/** Bytes of memory after a collection: the heap, and buffers outside of it. */
const memory = async (): Promise<number> => {
  let { heap = Number.NaN } = usage("/cpu?collect");
  for (let round = 0; round < 3; round++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    heap = Math.min(heap, usage("/cpu?collect").heap ?? Number.NaN);
  }
  return heap;
};

// What is made once for all runs is no part of the figure.
for (let index = 0; index < 50; index++) await write(`first ${index}`);
const before = await memory();
for (let index = 0; index < RUNS; index++) await write(String(index));
const after = await memory();
let bytes = 0;
const decoder = new TextEncoder();
for await (const { id, data } of runs.read("7")) bytes += decoder.encode(`id: ${id}\ndata: ${data}\n\n`).length;
console.log(JSON.stringify({ each: (after - before) / RUNS, bytes, text: TOKENS * tokenOf(0).length }));
process.exit();
