/**
 * Runs the named scripts of package.json one after the other, all of them even if one fails, so that a failure on one
 * runtime does not hide what the others would have said. Exits 1 if any failed.
 * If reports are wanted, each script's exit code is left beside them: an unhandled rejection fails a run without failing a test.
 */
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";

const scripts = process.argv.slice(2);
if (scripts.length === 0) throw new Error("running scripts: none was named");

const reports = process.env.FANWIRE_REPORT_DIR;
const failed = scripts.filter((script) => {
  console.log(`\n# ${script}`);
  const { status } = spawnSync(process.execPath, ["--run", script], { stdio: "inherit" });
  if (reports) writeFileSync(join(reports, `${script.replace("test:", "")}.exit`), String(status));
  return status !== 0;
});

console.log(failed.length === 0 ? `\nall passed: ${scripts.join(", ")}` : `\nfailed: ${failed.join(", ")}`);
process.exitCode = failed.length === 0 ? 0 : 1;
