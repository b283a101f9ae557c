// Tabs of one browser, without a browser: Web Locks and BroadcastChannel that a test controls, so that a tab can crash.
import type { Random } from "../random.ts";

/** What one tab has. */
export interface Tab {
  isDead: boolean;
}

type Work = (lock: object | null) => unknown;
interface Waiting {
  readonly tab: Tab;
  readonly work: Work;
  readonly settle: { resolve(value: unknown): void; reject(error: unknown): void };
}

export class Browser {
  /** The tab whose code runs now. */
  current: Tab = { isDead: false };
  readonly #held = new Map<string, Waiting>();
  readonly #queues = new Map<string, Waiting[]>();
  readonly #channels = new Set<FakeChannel>();
  readonly random: Random;

  constructor(random: Random) {
    this.random = random;
  }

  /** The process of a tab ends: it says nothing more, and its locks are free. */
  crash(tab: Tab): void {
    tab.isDead = true;
    for (const [name, { tab: owner }] of this.#held) if (owner === tab) this.#grantNext(name);
  }

  /** The tab that has the lock. */
  get leader(): Tab | undefined {
    return [...this.#held.values()][0]?.tab;
  }

  readonly locks = {
    request: (
      name: string,
      options: { readonly ifAvailable?: boolean; readonly signal?: AbortSignal },
      work: Work,
    ): Promise<unknown> =>
      new Promise((resolve, reject) => {
        const waiting = { tab: this.current, work, settle: { resolve, reject } };
        const queue = this.#queues.get(name) ?? [];
        this.#queues.set(name, queue);
        const isFree = !this.#held.has(name) && queue.length === 0;
        if (options.ifAvailable && !isFree) return resolve(this.#run(waiting.tab, () => work(null)));
        options.signal?.addEventListener("abort", () => {
          const index = queue.indexOf(waiting);
          if (index >= 0) queue.splice(index, 1);
          reject(options.signal?.reason);
        });
        queue.push(waiting);
        if (!this.#held.has(name)) this.#grantNext(name);
      }),
  };

  #run(tab: Tab, work: () => unknown): unknown {
    const before = this.current;
    this.current = tab;
    try {
      return work();
    } finally {
      this.current = before;
    }
  }

  #grantNext(name: string): void {
    this.#held.delete(name);
    const queue = this.#queues.get(name) ?? [];
    for (let next = queue.shift(); next; next = queue.shift()) {
      if (next.tab.isDead) continue;
      const waiting = next;
      this.#held.set(name, waiting);
      // In a task of its own, as in a browser.
      setTimeout(() => {
        const done = Promise.resolve(this.#run(waiting.tab, () => waiting.work({})));
        void done.then((value) => {
          waiting.settle.resolve(value);
          if (this.#held.get(name) === waiting) this.#grantNext(name);
        });
      }, 0);
      return;
    }
  }

  open(channel: FakeChannel): void {
    this.#channels.add(channel);
  }

  close(channel: FakeChannel): void {
    this.#channels.delete(channel);
  }

  post(from: FakeChannel, data: unknown): void {
    for (const channel of this.#channels) {
      if (channel === from || channel.name !== from.name || channel.tab.isDead) continue;
      channel.receive(structuredClone(data));
    }
  }
}

/** A BroadcastChannel of the tab that created it. Messages arrive in order, after a random time. */
export class FakeChannel {
  static browser: Browser;
  onmessage: ((event: { readonly data: unknown }) => void) | undefined;
  readonly name: string;
  readonly tab: Tab;
  readonly #inbox: unknown[] = [];
  #isClosed = false;

  constructor(name: string) {
    this.name = name;
    this.tab = FakeChannel.browser.current;
    FakeChannel.browser.open(this);
  }

  postMessage(data: unknown): void {
    if (!this.tab.isDead && !this.#isClosed) FakeChannel.browser.post(this, data);
  }

  receive(data: unknown): void {
    if (this.#inbox.push(data) === 1) this.#deliverLater();
  }

  close(): void {
    this.#isClosed = true;
    FakeChannel.browser.close(this);
  }

  #deliverLater(): void {
    const { random } = FakeChannel.browser;
    setTimeout(
      () => {
        const data = this.#inbox.shift();
        if (this.#inbox.length > 0) this.#deliverLater();
        if (this.tab.isDead || this.#isClosed) return;
        const before = FakeChannel.browser.current;
        FakeChannel.browser.current = this.tab;
        this.onmessage?.({ data });
        FakeChannel.browser.current = before;
      },
      random.chance(0.8) ? 0 : random.integer(1, 40),
    );
  }
}
