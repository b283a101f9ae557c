// Publishes without end into a SQLite file, works on runs beside that, and writes down what was answered and what was delivered. Runs under power-shim.c.
import { openSync, writeSync } from "node:fs";
import { createBroker } from "../../../src/index.ts";
import { sqliteEngine } from "../../../src/sqlite/index.ts";
import { Random } from "../../support/random.ts";
import { openRunsOf } from "../../support/runs/sessions.ts";
import { workOnRuns } from "./power-runs.ts";

const [, , path = "", durability = "", seed = "", notes = ""] = process.argv;
const engine = sqliteEngine({ path, durability: durability as "power", logBytes: 1e9 });
const broker = createBroker({ engine });
const random = new Random(Number(seed));
const out = openSync(notes, "a");
/** Written in one call, and so before anything else happens. */
const note = (id: string, channel: string, data: string): void => void writeSync(out, `${id} ${channel} ${data}\n`);

const CHANNELS = ["a", "b", "c"];
async function listen(channel: string): Promise<void> {
  for await (const item of broker.listen({ channels: channel }))
    if (item.type === "event") note(item.id, channel, item.data);
}
for (const channel of CHANNELS) void listen(channel);
await broker.history({ limit: 0 });

const { runs } = openRunsOf(engine);
void workOnRuns(runs, random, (name, events, end) => note("run", name, `${events}:${end}`));

for (let count = 0; ; ) {
  const batch = Array.from({ length: random.integer(1, 6) }, async () => {
    const channel = random.pick(CHANNELS);
    const data = `${count++}-${"x".repeat(random.integer(0, 300))}`;
    const { id } = await broker.broadcast(data, { channels: channel });
    note(id, channel, data);
  });
  await Promise.all(batch);
}
