// Whether there is a C compiler, for the test that loses writes.
import { spawnSync } from "node:child_process";
import type { TestOptions } from "vitest";
import { skipIf } from "../../support/skip.ts";

const hasCompiler = spawnSync("cc", ["--version"]).status === 0;
if (!hasCompiler && process.env.CI) throw new Error("There is no C compiler (cc); install gcc and libc6-dev.");

/** Options that skip a suite on a machine without a C compiler. */
export const needsCompiler: TestOptions = skipIf(!hasCompiler, "there is no C compiler (cc)");
