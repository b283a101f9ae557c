import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";

const root = new URL("../../", import.meta.url).pathname;

/** What a snippet may take from its surroundings. */
const SURROUNDINGS = `
declare const Deno: { env: { get(name: string): string | undefined }; serve(handler: (request: Request) => Promise<Response>): void };
declare const server: { stop(force: boolean): Promise<void> };
declare function userOf(request: Request): Promise<{ id: string; rooms: string[]; sessionEnds: Date } | undefined>;
declare function myEngine(name: string, options?: import("fanwire/testing").NamespaceOptions): import("fanwire").Engine;
declare function dropLog(name: string): Promise<void>;
`;

/** What `wrangler types` would write. */
const BINDINGS = `
declare module "cloudflare:workers" {
  export const env: { HUB: import("fanwire/workers").ObjectNamespace; PUBLISH_TOKEN: string };
}
`;

test("README: every TypeScript snippet compiles against the built package", () => {
  const snippets = [...readFileSync(`${root}README.md`, "utf8").matchAll(/^```ts\n([\s\S]*?)^```/gm)].map(
    ([, code = ""]) => code,
  );
  expect(snippets.length).toBeGreaterThan(4);
  const folder = mkdtempSync(join(tmpdir(), "fanwire-readme-"));
  try {
    for (const [index, code] of snippets.entries()) {
      const imports: string[] = [];
      if (!code.includes("import { createBroker") && code.includes("createBroker(") && !code.includes("bearer,"))
        imports.push('import { createBroker } from "fanwire";');
      if (!code.includes("const broker ="))
        imports.push('import type { Broker } from "fanwire";', "declare const broker: Broker;");
      writeFileSync(join(folder, `snippet${index}.ts`), `${imports.join("\n")}${SURROUNDINGS}\n${code}\nexport {};\n`);
    }
    writeFileSync(join(folder, "bindings.d.ts"), BINDINGS);
    const compilerOptions = {
      strict: true,
      exactOptionalPropertyTypes: true,
      target: "es2023",
      lib: ["es2023", "dom", "dom.iterable"],
      module: "esnext",
      moduleResolution: "bundler",
      noEmit: true,
      skipLibCheck: true,
      types: ["node", "bun"],
      typeRoots: [`${root}node_modules/@types`],
      paths: {
        fanwire: [`${root}dist/index.d.ts`],
        "fanwire/workers": [`${root}dist/workers/index.d.ts`],
        "fanwire/redis": [`${root}dist/redis/index.d.ts`],
        "fanwire/testing": [`${root}dist/testing/index.d.ts`],
        "fanwire/*": [`${root}dist/*.d.ts`],
        "@hono/node-server": [`${root}node_modules/@hono/node-server`],
        hono: [`${root}node_modules/hono`],
        ioredis: [`${root}node_modules/ioredis`],
        redis: [`${root}node_modules/redis`],
      },
    };
    writeFileSync(
      join(folder, "tsconfig.json"),
      JSON.stringify({ compilerOptions, include: ["*.ts", `${root}src/workers/cloudflare-workers.d.ts`] }),
    );
    const { stdout } = spawnSync(`${root}node_modules/.bin/tsc`, ["-p", folder], { encoding: "utf8" });
    expect(stdout).toBe("");
  } finally {
    rmSync(folder, { recursive: true });
  }
});

// It began with 250. Hono, authorisation, running it and Workers have each a section that people asked for; several machines took another 70,
// because what Redis has to be set to, and what holds while it is away, is nowhere else to be read; and what to watch and how to size it another 40.
test("README has at most 520 lines", () => {
  expect(readFileSync(`${root}README.md`, "utf8").split("\n").length).toBeLessThanOrEqual(520);
});
