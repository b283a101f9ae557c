// Faults in the contract of an engine: a case that says less than its requirement accepts a wrong engine.
import type { Mutant } from "./mutants.ts";

export const testingMutants: readonly Mutant[] = [
  {
    name: "contract-text-not-compared",
    file: "testing/support/check-page.ts",
    tests: "engine/faulty-engines",
    find: ", text, event.text);",
    replace: ", text, text);",
    harm: "An engine that spoils the text of events passes the contract.",
  },
  {
    name: "contract-repeats-in-a-page",
    file: "testing/support/check-page.ts",
    tests: "engine/faulty-engines",
    find: "[...inPage].sort(",
    replace: "[...seqs].sort(",
    harm: "An engine that gives an event twice passes the contract.",
  },
  {
    name: "contract-false-gaps",
    file: "testing/support/check-page.ts",
    tests: "engine/faulty-engines",
    find: "check(dropped <= lastDroppable, ",
    replace: "check(dropped <= Infinity, ",
    harm: "An engine that reports retained events as missing passes the contract.",
  },
  {
    name: "contract-missing-events",
    file: "testing/support/check-page.ts",
    tests: "engine/faulty-engines",
    find: "check(dropped >= lastMissing, ",
    replace: "check(dropped >= 0, ",
    harm: "An engine that loses events in silence passes the contract.",
  },
  {
    name: "contract-any-code",
    file: "testing/support/expectation.ts",
    tests: "engine/faulty-engines",
    find: 'if (typeof code !== "string" || !codes.includes(code))',
    replace: 'if (typeof code !== "string")',
    harm: "An engine that refuses with the wrong code passes, and publishers repeat what they must not.",
  },
  {
    name: "contract-needs-not-checked",
    file: "testing/support/case-context.ts",
    tests: "engine/contract",
    find: "if (missing.length > 0)",
    replace: "if (missing.length > 1)",
    harm: "A case that cannot be run fails in a way that its author does not understand, or passes without a proof.",
  },
];
