// The watches of this process over runs, which share its feed.
import type { RunWatch } from "../engine/run-store.ts";
import { Startup } from "../shared-log/startup.ts";
import { engineDown } from "./errors.ts";
import type { Feed } from "./feed.ts";

type Watcher = (isStop: boolean) => void;

/** The watches of one run. */
interface Topic {
  readonly watchers: Set<Watcher>;
  /** Present until the feed has confirmed the subscription. */
  ready: Promise<void> | undefined;
}

/** Milliseconds for which watches wait for a feed that is not connected yet, or was lost. */
const ABSENCE_MS = 4_000;

const ignore = (): void => undefined;
const RUN = "run:";

/** Whether a channel of the feed, without the prefix, is of a run. */
export const isOfRun = (channel: string): boolean => channel.startsWith(RUN);

/** Returns an id as a part of keys and channels. Each id has a name of its own: Redis could not keep lone surrogates, so they are escaped. */
export const runName = (id: string): string => JSON.stringify(id).slice(1, -1);

/** Keeps watches, and subscribes to the channels of the runs that are watched. */
export class RunWatches {
  readonly #feed: Feed;
  readonly #base: string;
  /** By channel without the prefix. */
  readonly #topics = new Map<string, Topic>();
  #hasFeed = false;
  /** The time without the feed for which watches wait. Over when the feed is back. */
  #absence = new Startup(ABSENCE_MS);

  constructor(feed: Feed, base: string) {
    this.#feed = feed;
    this.#base = base;
  }

  add(id: string, onChange: Watcher): RunWatch {
    const channel = RUN + runName(id);
    let topic = this.#topics.get(channel);
    if (!topic) {
      topic = { watchers: new Set(), ready: undefined };
      this.#topics.set(channel, topic);
      if (this.#hasFeed) this.#subscribe(new Map([[channel, topic]])).catch(ignore);
    }
    const { watchers } = topic;
    // A function of its own: the caller may watch twice with one.
    const watcher: Watcher = (isStop) => onChange(isStop);
    watchers.add(watcher);
    const ready = this.#hasFeed ? topic.ready : this.#whenBack();
    // A caller may have no use for it.
    ready?.catch(ignore);
    return {
      ready,
      stop: () => {
        if (!watchers.delete(watcher) || watchers.size > 0) return;
        this.#topics.delete(channel);
        if (this.#hasFeed) this.#feed.unsubscribe([`${this.#base}:${channel}`]).catch(ignore);
      },
    };
  }

  /** A change was announced. */
  onMessage(channel: string, text: string): void {
    for (const watcher of [...(this.#topics.get(channel)?.watchers ?? [])]) watcher(text !== "");
  }

  /** The feed is connected and has no subscriptions, or it is lost. */
  onFeed(isConnected: boolean): void {
    this.#hasFeed = isConnected;
    if (!isConnected) {
      this.#absence = new Startup(ABSENCE_MS);
      return;
    }
    this.#subscribe(this.#topics).then(() => {
      this.#absence.end();
      // Changes were missed, or may have been.
      for (const channel of [...this.#topics.keys()]) this.onMessage(channel, "?");
    }, ignore);
  }

  close(): void {
    this.#hasFeed = false;
    this.#topics.clear();
    this.#absence.end();
  }

  /** Rejects if the feed is lost. Then `onFeed` subscribes again. */
  #subscribe(topics: ReadonlyMap<string, Topic>): Promise<void> {
    const all = [...topics.values()];
    const ready = this.#feed.subscribe(Array.from(topics.keys(), (channel) => `${this.#base}:${channel}`)).then(() => {
      for (const topic of all) if (topic.ready === ready) topic.ready = undefined;
    });
    for (const topic of all) topic.ready = ready;
    return ready;
  }

  /** Resolves when the feed is back, and all channels are subscribed. */
  async #whenBack(): Promise<void> {
    await this.#absence.ended;
    if (!this.#hasFeed) throw engineDown();
  }
}
