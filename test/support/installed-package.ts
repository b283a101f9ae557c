// Packs the package, and installs it in an empty folder as a user does.
import { execFile } from "node:child_process";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const root = join(import.meta.dirname, "../..");

/** A folder in which the package is installed. */
export interface InstalledPackage {
  readonly folder: string;
  readonly tarball: string;
  /** The paths of the files in the tarball. */
  readonly packed: readonly string[];
}

export async function installPackage(): Promise<InstalledPackage> {
  const folder = await mkdtemp(join(tmpdir(), "fanwire-package-"));
  // Scripts off: `npm run test:package` has just built, and prepack would build again.
  const { stdout } = await run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", folder], {
    cwd: root,
  });
  const [report] = Object.values(JSON.parse(stdout)) as { filename: string; files: { path: string }[] }[];
  if (!report) throw new Error(`packing: npm said ${stdout}`);
  const tarball = join(folder, report.filename);
  await writeFile(join(folder, "package.json"), JSON.stringify({ name: "user", private: true, type: "module" }));
  await run("npm", ["install", "--no-audit", "--no-fund", "--offline", tarball], { cwd: folder });
  return { folder, tarball, packed: report.files.map((file) => file.path) };
}
