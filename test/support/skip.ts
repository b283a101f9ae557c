// Skips tests with a reason, and prints the reasons at the end of a run.
import type { TestOptions } from "vitest";
import type { Reporter, TestCase, TestModule, TestSuite } from "vitest/node";

declare module "vitest" {
  interface TaskMeta {
    /** The reason why a test or a suite is skipped. */
    skipped?: string;
  }
}

/** Returns options for a test or a suite that skip it if `condition` is true. The run prints the reason at its end. */
export function skipIf(condition: boolean, reason: string): TestOptions {
  return condition ? { skip: true, meta: { skipped: reason } } : {};
}

/** Prints how many tests were skipped for each reason, after the output of the default reporter, which does not print reasons. */
export class SkipReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const counts = new Map<string, number>();
    for (const module of modules) {
      for (const test of module.children.allTests("skipped")) {
        // A test that `-t` excludes has no reason.
        const reason = reasonOf(test) ?? (module.project.config.testNamePattern ? undefined : "no reason given");
        if (reason) counts.set(reason, (counts.get(reason) ?? 0) + 1);
      }
    }
    for (const [reason, count] of counts) console.log(`skipped: ${count} × ${reason}`);
  }
}

function reasonOf(test: TestCase): string | undefined {
  const result = test.result();
  if (result.state === "skipped" && result.note) return result.note;
  let place: TestCase | TestSuite | TestModule = test;
  while (place.type !== "module") {
    const { skipped } = place.meta();
    if (skipped) return skipped;
    place = place.parent;
  }
  return undefined;
}
