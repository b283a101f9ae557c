// The published types of typed events, with the project's compiler and an older one. What they say is in types/ and workers/.
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { skipIf } from "../support/skip.ts";

const root = resolve(import.meta.dirname, "../..");
const compilers = { "TypeScript 7": "node_modules/typescript", "TypeScript 5.9": "test/older/node_modules/typescript" };

/** Returns what a compiler prints about a project; nothing if there are no errors. */
const compile = (folder: string, project: string): Promise<string> =>
  new Promise((done) => {
    execFile(process.execPath, [join(root, folder, "bin/tsc"), "-p", project], { cwd: root }, (error, output) =>
      done(output || (error ? String(error) : "")),
    );
  });

describe.each(Object.entries(compilers))("%s", (name, folder) => {
  const isMissing = !existsSync(join(root, folder, "bin/tsc"));
  const options = skipIf(
    isMissing && process.env.CI !== "true",
    "the older libraries are missing: npm ci --prefix test/older",
  );

  test("is the version that its name says", options, () => {
    const { version } = JSON.parse(readFileSync(join(root, folder, "package.json"), "utf8")) as { version: string };
    expect(`TypeScript ${version}.`).toContain(`${name}.`);
  });

  test.each(["types", "workers"])("test/package/%s: every type is as it says", options, async (project) => {
    expect(await compile(folder, join("test/package", project))).toBe("");
  });

  test("an unknown event and data of another type are errors at their place", options, async () => {
    const project = mkdtempSync(join(tmpdir(), "fanwire-types-"));
    try {
      mkdirSync(join(project, "node_modules"));
      writeFileSync(join(project, "package.json"), '{"type":"module"}');
      symlinkSync(root, join(project, "node_modules/fanwire"));
      const extended = join(root, "test/package/types/tsconfig.json");
      const compilerOptions = { types: [], rootDir: "/" };
      writeFileSync(
        join(project, "tsconfig.json"),
        JSON.stringify({ extends: extended, compilerOptions, include: ["."] }),
      );
      writeFileSync(
        join(project, "wrong.ts"),
        [
          'import { createBroker, type StandardSchema } from "fanwire";',
          "declare const price: StandardSchema<number, string>;",
          "const broker = createBroker({ events: { price } });",
          'export const right = broker.broadcast({ event: "price", data: "1" });',
          'export const wrongType = broker.broadcast({ event: "prices", data: "1" });',
          'export const wrongData = broker.broadcast({ event: "price", data: 1 });',
          "export const wrongValue = broker.history().then(({ events }): string[] => events.map(({ value }) => value));",
        ].join("\n"),
      );
      const output = await compile(folder, project);
      const places = [...output.matchAll(/wrong\.ts\((\d+),/g)].map(([, line]) => Number(line));
      expect([...new Set(places)], output).toEqual([5, 6, 7]);
    } finally {
      rmSync(project, { recursive: true });
    }
  });
});
