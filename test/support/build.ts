// Builds the package into `dist`, which other programs may read or build at the same time. The compiler writes to a folder of its own. Then
// every file that differs is moved into place by a rename, so a reader finds either the old file or the new one, and a build that changes
// nothing touches nothing. A build that fails leaves `dist` as it was.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { buildSync } from "esbuild";

const root = join(import.meta.dirname, "../..");
const dist = join(root, "dist");
// Next to `dist`, not in the directory for temporary files: source maps hold relative paths, and a rename needs the same file system.
const built = mkdtempSync(join(root, ".dist-"));

try {
  const tsc = join(root, "node_modules/.bin/tsc");
  const { status } = spawnSync(tsc, ["--outDir", built], { cwd: root, stdio: "inherit" });
  if (status === 0) {
    bundleClient();
    moveIntoPlace();
  }
  process.exitCode = status ?? 1;
} finally {
  rmSync(built, { recursive: true, force: true });
}

/** Writes `fanwire/client` as one file, for pages that load it without a bundler. */
function bundleClient(): void {
  buildSync({
    entryPoints: [join(built, "client/index.js")],
    outfile: join(built, "browser.js"),
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2023",
  });
}

function moveIntoPlace(): void {
  mkdirSync(dist, { recursive: true });
  const files = new Set(listFiles(built));
  for (const file of files) {
    const [from, to] = [join(built, file), join(dist, file)];
    if (existsSync(to) && readFileSync(to).equals(readFileSync(from))) continue;
    mkdirSync(dirname(to), { recursive: true });
    renameSync(from, to);
  }
  // Folders stay: a folder that vanishes would break the listing of another build.
  for (const file of listFiles(dist)) if (!files.has(file)) rmSync(join(dist, file), { force: true });
}

/** Returns the files below a folder, relative to it. */
function listFiles(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1));
}
