// Faults in the adapters of runs.
import type { Mutant } from "./mutants.ts";

export const runAdapterMutants: readonly Mutant[] = [
  {
    name: "failed-answer-looks-finished",
    file: "runs/ai-sdk.ts",
    tests: "runs/adapters",
    find: `failed: 'data: {"type":"error","errorText":"The answer broke off."}\\n\\n',`,
    replace: 'failed: "",',
    harm: "useChat takes half an answer for a whole one, because the stream merely ended.",
  },
  {
    name: "start-index-off-by-one",
    file: "runs/ai-sdk.ts",
    tests: "runs/adapters",
    find: "Math.max(0, info.events + index)",
    replace: "Math.max(0, info.events + index + 1)",
    harm: "A page that resumes from the end of an answer loses a chunk.",
  },
  {
    name: "joins-make-a-second-stream",
    file: "runs/resumable-stream.ts",
    tests: "runs/adapters",
    find: 'error.code === "run-exists"',
    replace: 'error.code === "run-ended"',
    harm: "Two tabs that open at the same time get an error in place of one answer.",
  },
  {
    name: "skips-too-little-over-chunks",
    file: "runs/resumable-stream.ts",
    tests: "runs/adapters",
    find: "skip -= chunk.length - rest.length;",
    replace: "skip = 0;",
    harm: "A page that has more than the first chunk gets text twice.",
  },
  {
    name: "broken-turn-looks-finished",
    file: "runs/tanstack.ts",
    tests: "runs/adapters",
    find: 'isTurnOpen = type === "RUN_STARTED"',
    replace: "isTurnOpen = false",
    harm: "A page that joins a run which broke off after a call of a tool takes it for finished.",
  },
  {
    name: "replays-priming-events",
    file: "runs/mcp.ts",
    tests: "runs/adapters",
    find: 'if (data !== "{}") await',
    replace: "await",
    harm: "A client of an MCP server that reconnects receives an empty message, which it cannot parse.",
  },
  {
    name: "replays-despite-a-gap",
    file: "runs/mcp.ts",
    tests: "runs/adapters",
    find: "if (page?.gaps.length === 0) return",
    replace: "if (page) return",
    harm: "A client of an MCP server continues as if nothing were missing.",
  },
];
