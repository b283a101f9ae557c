// Every Markdown file: TypeScript snippets compile against the built package, and relative links lead somewhere.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";

const root = new URL("../../", import.meta.url).pathname;
const MAX_FRONT_PAGE_LINES = 200;

/** Names that a snippet may take from its surroundings. */
const SURROUNDINGS = `
declare const Deno: { env: { get(name: string): string | undefined }; serve(handler: (request: Request) => Promise<Response>): void };
declare const server: { stop(force: boolean): Promise<void> };
declare function userOf(request: Request): Promise<{ id: string; rooms: string[]; sessionEnds: Date } | undefined>;
declare function answerOf(prompt: string): ReadableStream<string>;
declare function myEngine(name: string, options?: import("fanwire/engine/testing").NamespaceOptions): import("fanwire").Engine;
declare function dropLog(name: string): Promise<void>;
`;

/** The module that \`wrangler types\` would declare, and packages that snippets import without their types. */
const BINDINGS = `
declare module "ai";
declare module "@tanstack/ai";
declare module "@modelcontextprotocol/*";
declare module "cloudflare:workers" {
  export const env: { HUB: import("fanwire/workers").ObjectNamespace; PUBLISH_TOKEN: string };
}
`;

const skipped = new Set(["node_modules", "dist", ".git", ".wrangler", "coverage"]);
const markdownIn = (folder: string): string[] =>
  readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return skipped.has(entry.name) ? [] : markdownIn(path);
    return entry.name.endsWith(".md") ? [path] : [];
  });
const documents = markdownIn(".").sort();
const textOf = (document: string): string => readFileSync(join(root, document), "utf8");

/** The types of each subpath of the package, as a project that has installed it resolves them. */
function typePaths(): Record<string, string[]> {
  const { exports } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
    exports: Record<string, { types?: string } | string>;
  };
  return Object.fromEntries(
    Object.entries(exports).flatMap(([subpath, target]) =>
      typeof target === "object" && target.types
        ? [[`fanwire${subpath.slice(1)}`, [join(root, target.types)]] as const]
        : [],
    ),
  );
}

test("READMEs: every TypeScript snippet compiles against the built package", () => {
  const snippets = documents.flatMap((document) =>
    [...textOf(document).matchAll(/^```ts\n([\s\S]*?)^```/gm)].map(([, code = ""], index) => ({
      name: `${document.replaceAll(/[^A-Za-z0-9]+/g, "_")}_${index}`,
      code,
    })),
  );
  expect(snippets.length).toBeGreaterThan(10);
  const folder = mkdtempSync(join(tmpdir(), "fanwire-readme-"));
  try {
    for (const { name, code } of snippets) {
      const lines: string[] = [];
      if (/\bcreateBroker\(/.test(code) && !/import \{[^}]*\bcreateBroker\b/.test(code))
        lines.push('import { createBroker } from "fanwire";');
      if (/\bbroker\b/.test(code) && !/\b(const|let) broker\b|\(broker\b.*=>/.test(code))
        lines.push('import type { Broker } from "fanwire";', "declare const broker: Broker;");
      writeFileSync(join(folder, `${name}.ts`), `${lines.join("\n")}${SURROUNDINGS}\n${code}\nexport {};\n`);
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
      typeRoots: [join(root, "node_modules/@types")],
      paths: { ...typePaths(), "*": [join(root, "node_modules/*")] },
    };
    writeFileSync(
      join(folder, "tsconfig.json"),
      JSON.stringify({ compilerOptions, include: ["*.ts", join(root, "src/workers/cloudflare-workers.d.ts")] }),
    );
    const { stdout } = spawnSync(join(root, "node_modules/.bin/tsc"), ["-p", folder], { encoding: "utf8" });
    expect(stdout).toBe("");
  } finally {
    rmSync(folder, { recursive: true });
  }
});

/** The anchors of a document, as GitHub derives them from its headings. */
const anchorsOf = (document: string): Set<string> =>
  new Set(
    [...textOf(document).matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
        .replaceAll(" ", "-"),
    ),
  );

test.each(documents)("%s: every relative link leads to a file, and to a heading of it", (document) => {
  const prose = textOf(document).replaceAll(/^```[\s\S]*?^```/gm, "");
  for (const [, target = ""] of prose.matchAll(/\]\(([^)\s]+)\)/g)) {
    if (/^[a-z]+:/.test(target)) continue;
    const [path = "", anchor] = target.split("#");
    const file = path === "" ? document : join(dirname(document), path);
    expect(existsSync(join(root, file)), target).toBe(true);
    if (anchor !== undefined) expect([...anchorsOf(file)], target).toContain(anchor);
  }
});

test("README.md: is a front page of at most 200 lines", () => {
  expect(textOf("README.md").split("\n").length).toBeLessThanOrEqual(MAX_FRONT_PAGE_LINES);
});
