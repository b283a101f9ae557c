// The watches over runs of a store whose changes all happen in this process.
import type { RunWatch } from "./run-store.ts";

/** The watchers of each run that is watched, by its id. */
export class RunWatchers extends Map<string, Set<(isStop: boolean) => void>> {
  /** As `RunStore.watch`. No change after the call can be missed. */
  watch(id: string, onChange: (isStop: boolean) => void): RunWatch {
    const watchers = this.get(id) ?? new Set();
    this.set(id, watchers);
    // A function of its own: the caller may watch twice with one.
    const watcher = (isStop: boolean): void => onChange(isStop);
    watchers.add(watcher);
    return {
      stop: () => {
        if (watchers.delete(watcher) && watchers.size === 0) this.delete(id);
      },
    };
  }

  /** Calls the watchers of a run, with whether somebody may have asked it to stop. */
  notify(id: string, isStop: boolean): void {
    for (const watcher of [...(this.get(id) ?? [])]) watcher(isStop);
  }
}
