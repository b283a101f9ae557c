// Sessions of an engine that are opened for their runs.
import type { Engine, EngineListener } from "../../../src/engine/engine.ts";
import type { RunStore } from "../../../src/engine/run-store.ts";

/** Opens a store of runs on an engine, as a broker does. `errors` receives the texts of what fails in the background. */
export function openRunsOf(engine: Engine, errors: string[] = []): { readonly runs: RunStore; close(): void } {
  const listener: EngineListener = {
    position: Infinity,
    onAppended: () => undefined,
    onOverrun: () => undefined,
    onError: (error) => void errors.push(String(error)),
  };
  const session = engine.open(listener);
  const runs = session.openRuns?.((error) => void errors.push(String(error)));
  if (!runs) throw new Error("Opening runs: the engine has no store of runs.");
  return {
    runs,
    close() {
      runs.close();
      session.close();
    },
  };
}
