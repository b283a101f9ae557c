// The structure of `src`: rooms, the order of their imports, and the map in src/README.md.
import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";

const root = new URL("../../", import.meta.url).pathname;
const src = join(root, "src");
const map = readFileSync(join(src, "README.md"), "utf8");

const MAX_EXPORT_FILES = 6;
const MAX_ROOM_FILES = 16;
const MAX_FILE_LINES = 400;
const MAX_STEPS = 8;

const read = (file: string): string => readFileSync(join(src, file), "utf8");
const entries = readdirSync(src, { recursive: true, encoding: "utf8" }).sort();
const files = entries.filter((entry) => entry.endsWith(".ts"));
const folders = entries.filter((entry) => statSync(join(src, entry)).isDirectory());
/** The rooms, in the order of the map. */
const rooms = [...map.matchAll(/^\| \[([a-z-]+)\]\(\1\/README\.md\) +\|/gm)].map(([, room = ""]) => room);

test("src: the top lists the exports, and nothing else", () => {
  const top = readdirSync(src).filter((entry) => !folders.includes(entry) && entry !== "README.md");
  const { exports } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { exports: object };
  const exported = JSON.stringify(exports);
  for (const file of top) expect(exported, file).toContain(`./dist/${file.replace(/\.ts$/, ".js")}`);
  expect(top.length).toBeLessThanOrEqual(MAX_EXPORT_FILES);
});

test("src: the map lists every room", () => {
  expect([...rooms].sort()).toEqual(folders.filter((folder) => !folder.includes("/")));
});

test.each(folders)("src/%s: has a README.md, and few files", (folder) => {
  expect(existsSync(join(src, folder, "README.md"))).toBe(true);
  expect(
    files.filter((file) => file.startsWith(`${folder}/`) && !file.slice(folder.length + 1).includes("/")).length,
  ).toBeLessThanOrEqual(MAX_ROOM_FILES);
});

test.each(files)("src/%s: is not too long, and says at its head what it does", (file) => {
  // A program says first what runs it.
  const text = read(file).replace(/^#!.*\n/, "");
  expect(text.split("\n").length).toBeLessThanOrEqual(MAX_FILE_LINES);
  if (!file.endsWith("index.ts") && !file.endsWith(".d.ts")) expect(text.slice(0, 3)).toMatch(/^(\/\/ |\/\*\*)/);
});

test("the path of an event: at most 8 steps, whose files and functions exist", () => {
  const steps = [...map.matchAll(/^\| (\d+) +\| `([^`]+)` +\| `(\w+)\.(#?\w+)` +\|/gm)];
  expect(steps.map(([, step]) => Number(step))).toEqual(steps.map((_, index) => index + 1));
  expect(steps.length).toBeGreaterThan(5);
  expect(steps.length).toBeLessThanOrEqual(MAX_STEPS);
  for (const [, , file = "", name = "", method = ""] of steps) {
    expect(read(file), `${file}: class ${name}`).toContain(`class ${name} `);
    expect(read(file), `${file}: ${name}.${method}`).toMatch(new RegExp(`^  (async )?${method}\\(`, "m"));
  }
});

test("the map: every file that it names exists", () => {
  const named = [...map.matchAll(/`((?:[a-z-]+\/)+[a-z-]*(?:\.ts|\.md)?)`/g)].map(([, path = ""]) => path);
  expect(named.length).toBeGreaterThan(20);
  for (const path of named) {
    const base = path.startsWith("test/") ? root : src;
    expect(existsSync(join(base, path)), path).toBe(true);
  }
});

test("lint: no room imports one below it and no two files import each other, not even a type", () => {
  const folder = mkdtempSync(join(tmpdir(), "fanwire-rooms-"));
  try {
    cpSync(join(root, "biome.json"), join(folder, "biome.json"));
    cpSync(join(root, "package.json"), join(folder, "package.json"));
    for (const room of rooms) {
      mkdirSync(join(folder, "src", room), { recursive: true });
      for (const other of rooms)
        writeFileSync(
          join(folder, "src", room, `${other}-probe.ts`),
          `import type { Probe } from "../${other}/probe.ts";\nexport type Other = Probe;\n`,
        );
      writeFileSync(
        join(folder, "src", room, "a.ts"),
        'import type { B } from "./b.ts";\nexport type A = B | undefined;\n',
      );
      writeFileSync(join(folder, "src", room, "b.ts"), 'import type { A } from "./a.ts";\nexport type B = A[];\n');
    }
    const { stdout, stderr } = spawnSync(
      join(root, "node_modules/.bin/biome"),
      ["lint", "--colors=off", "--max-diagnostics=none", "src"],
      { cwd: folder, encoding: "utf8" },
    );
    const found = [...(stdout + stderr).matchAll(/^(src\/\S+?):\d+:\d+ lint\/\w+\/(\w+)/gm)].map(
      ([, file, rule]) => `${file} ${rule}`,
    );
    const expected = rooms.flatMap((room, index) => [
      ...rooms.slice(index + 1).map((other) => `src/${room}/${other}-probe.ts noRestrictedImports`),
      `src/${room}/a.ts noImportCycles`,
      `src/${room}/b.ts noImportCycles`,
    ]);
    expect(found.sort()).toEqual(expected.sort());
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("the options' table: names every option of createBroker, and no other", () => {
  const source = read("broker/options.ts");
  const start = source.indexOf("export interface BrokerOptions<");
  const declared = source.slice(start, source.indexOf("\n}\n", start));
  const options = [...declared.matchAll(/^ {2}readonly (\w+)\??:/gm)].map(([, name]) => name);
  const table = read("broker/README.md");
  const section = table.slice(table.indexOf("## Options"), table.indexOf("## Rules"));
  const listed = [...section.matchAll(/^\| (`\w+`(?:, `\w+`)*) /gm)].flatMap(([, names = ""]) =>
    [...names.matchAll(/`(\w+)`/g)].map(([, name]) => name),
  );
  expect(options.length).toBeGreaterThan(20);
  expect([...listed].sort()).toEqual([...options].sort());
});
