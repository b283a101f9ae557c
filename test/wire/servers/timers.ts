// Counts timers that are set and neither fired nor cleared. Imported before anything else. Timers inside the runtime are not counted.
const active = new Set<unknown>();
const { setTimeout, clearTimeout, setInterval, clearInterval } = globalThis;

Object.assign(globalThis, {
  setTimeout(task: () => void, ms?: number) {
    const timer = setTimeout(() => {
      active.delete(timer);
      task();
    }, ms);
    active.add(timer);
    return timer;
  },
  setInterval(task: () => void, ms?: number) {
    const timer = setInterval(task, ms);
    active.add(timer);
    return timer;
  },
  clearTimeout(timer: number) {
    active.delete(timer);
    clearTimeout(timer);
  },
  clearInterval(timer: number) {
    active.delete(timer);
    clearInterval(timer);
  },
});

export const activeTimers = (): number => active.size;
