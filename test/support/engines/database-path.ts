// Paths for SQLite files of tests, in a folder that is removed with the process.
interface Modules {
  (name: "node:fs"): { mkdtempSync(prefix: string): string; rmSync(path: string, options: object): void };
  (name: "node:os"): { tmpdir(): string };
}
interface ProcessGlobal {
  readonly process: { readonly getBuiltinModule: Modules; on(event: "exit", listener: () => void): void };
}

let folder: string | undefined;
let count = 0;

/** Returns the path of a file that does not exist. Not with an import, because this module is loaded on workerd as well. */
export function newDatabasePath(): string {
  const { process } = globalThis as unknown as ProcessGlobal;
  const { mkdtempSync, rmSync } = process.getBuiltinModule("node:fs");
  if (folder === undefined) {
    const created = mkdtempSync(`${process.getBuiltinModule("node:os").tmpdir()}/fanwire-sqlite-`);
    folder = created;
    process.on("exit", () => rmSync(created, { recursive: true, force: true }));
  }
  return `${folder}/${++count}.db`;
}
