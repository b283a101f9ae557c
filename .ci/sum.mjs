/**
 * Adds up what .ci/run has left in its folder: for each part the exit code, the log and the reports of vitest. The exit code
 * alone would not do: a run that found no test, or that never started, must count as failed and not as nothing.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const work = process.argv[2];
if (!work) throw new Error("summing up: name the folder of the reports");

/** Counts of one vitest run (`mode`), over the reports it left; more than one if it was run more than once. */
function count(dir, mode, exit) {
  const files = readdirSync(dir).filter((file) => file.startsWith(`${mode}-`) && file.endsWith(".json"));
  const sum = { passed: 0, failed: 0, skipped: 0, notes: [] };
  for (const file of files) {
    const report = JSON.parse(readFileSync(join(dir, file), "utf8"));
    sum.passed += report.numPassedTests;
    sum.failed += report.numFailedTests;
    sum.skipped += report.numPendingTests + report.numTodoTests;
    for (const suite of report.testResults) {
      if (suite.status !== "failed" || suite.assertionResults.some((test) => test.status === "failed")) continue;
      sum.failed += 1;
      sum.notes.push("a test file failed to load");
    }
  }
  if (sum.passed + sum.failed === 0) {
    sum.failed = 1;
    sum.notes.push(files.length === 0 ? "it left no report" : "it ran no test");
  }
  if (exit !== "0" && sum.failed === 0) {
    sum.failed = 1;
    sum.notes.push(`exit ${exit} although no test failed`);
  }
  return sum;
}

function show(name, { passed, failed, skipped = 0, notes = [] }, where) {
  const words = [
    `${passed} passed`,
    `${failed} failed`,
    ...(skipped > 0 ? [`${skipped} skipped`] : []),
    ...new Set(notes),
  ];
  console.log(`${name.padEnd(16)} ${words.join(", ")}${where ? ` [${where}]` : ""}`);
}

const total = { passed: 0, failed: 0 };
const parts = readdirSync(work).sort();
for (const folder of parts) {
  const dir = join(work, folder);
  const name = folder.replace(/^\d+-/, "");
  const exit = readFileSync(join(dir, "exit"), "utf8");
  const modes = readFileSync(join(dir, "expects"), "utf8").split(" ").filter(Boolean);
  const log = readFileSync(join(dir, "log"), "utf8");

  if (modes.length === 0) {
    const one = exit === "0" ? { passed: 1, failed: 0 } : { passed: 0, failed: 1, notes: [`exit ${exit}`] };
    show(name, one, `node ${process.versions.node}`);
    total.passed += one.passed;
    total.failed += one.failed;
    continue;
  }

  for (const mode of modes) {
    // A part of several runs (test/support/run-parts.ts) leaves the exit code of each.
    const own = join(dir, `${mode}.exit`);
    const one = count(dir, mode, existsSync(own) ? readFileSync(own, "utf8") : exit);
    show(name === mode ? name : `${name}:${mode}`, one, places(log, mode).join("; "));
    total.passed += one.passed;
    total.failed += one.failed;
  }
}
if (parts.length === 0) total.failed = 1;

console.log(`${total.passed} passed, ${total.failed} failed`);
process.exitCode = total.failed === 0 ? 0 : 1;

/** Where a run says it was: the tests print lines such as `conformance on bun 1.4.5` or `wire on deno 2.9.6 (Deno.serve)`. */
function places(log, mode) {
  const conformance = ["node", "bun", "deno", "workerd"].includes(mode);
  const start = conformance ? `conformance on ${mode} ` : `${mode} on `;
  const lines = log.split("\n").filter((line) => line.startsWith(start));
  return [...new Set(lines.map((line) => line.slice(line.indexOf(" on ") + 4).trim()))];
}
