// Runs the contract on the SQLite engine over better-sqlite3, on a Node without SQLite of its own: plain JavaScript, because such a Node cannot
// read TypeScript. The environment variable NODE_PATH has the folder of better-sqlite3. Prints one line of JSON.
import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createBroker } from "../../../dist/index.js";
import { sqliteEngine } from "../../../dist/sqlite/index.js";
import { brokerCases, engineCases, missingNeeds } from "../../../dist/testing/index.js";

const Database = createRequire(import.meta.url)("better-sqlite3");
const folder = mkdtempSync(join(tmpdir(), "fanwire-better-"));
let count = 0;
const newPath = () => join(folder, `${count++}.db`);

const harness = {
  offers: ["ephemeral"],
  open(options = {}) {
    const database = new Database(newPath());
    const engine = sqliteEngine({ database, ...options });
    return { engine: () => engine, close: () => database.close() };
  },
};
const failed = [];
let passed = 0;
for (const each of [...engineCases, ...brokerCases]) {
  if (missingNeeds(each, harness).length > 0) continue;
  await each.run(harness).then(
    () => passed++,
    (error) => failed.push(`${each.id}: ${error}`),
  );
}

// With a path the engine finds the package by itself, and a second life continues the log. What better-sqlite3 says of a bad file is understood.
const path = newPath();
const ids = [];
for (let life = 0; life < 2; life++) {
  const broker = createBroker({ engine: sqliteEngine({ path }) });
  ids.push((await broker.broadcast("x")).id);
  await broker.close();
}

// So does a run that has ended.
const runs = [];
const listener = { position: Infinity, onAppended: () => undefined, onOverrun: () => undefined };
for (let life = 0; life < 2; life++) {
  const session = sqliteEngine({ path }).open(listener);
  const store = session.openRuns(() => undefined);
  if (life === 0) {
    await store.start("a", { generation: "one", leaseMs: 60_000, retainMs: 60_000, readers: undefined });
    const texts = ["data: é\n\n", "data: 2\n\n"];
    await store.append("a", "one", { after: 0, texts, end: "ended" });
  }
  const { end, bytes } = await store.read("a", 0, 1_000);
  runs.push(`${end} ${new TextDecoder().decode(bytes)}`);
  session.close();
}
const reasonOf = (engine) =>
  createBroker({ engine, onError: () => undefined })
    .broadcast("x")
    .catch((error) => error.cause.message);
const owner = new Database(path);
owner.exec("PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; COMMIT");
const busy = await reasonOf(sqliteEngine({ path }));
owner.close();
const missing = await reasonOf(sqliteEngine({ path: join(folder, "missing", "a.db") }));
console.log(JSON.stringify({ version: process.version, passed, failed, ids, runs, busy, missing }));
rmSync(folder, { recursive: true });
