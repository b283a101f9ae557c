// Random histories of owners that share one log, and an oracle that knows only what was published: an owner that keeps within an equal part of
// the bounds has lost nothing.
import fc from "fast-check";
import type { Engine, EngineSession, LogOptions } from "../../../src/engine.ts";

/** What a log answers about a channel. */
interface ChannelState {
  /** The positions of its events that can be read. */
  readonly held: readonly number[];
  /** The position of the last event that it may have had, and that cannot be read. */
  readonly droppedThrough: number;
  /** Whether the log has no record of it. */
  readonly isForgotten: boolean;
}

/** The log that a history is played on. */
export interface OwnersLog {
  /** Returns the position, and the bytes of the event on the wire. */
  append(
    keys: readonly string[],
    text: string,
    subject: string,
  ): MaybePromise<{ readonly seq: number; readonly bytes: number }>;
  /** Returns the state of each channel. */
  states(keys: readonly string[]): MaybePromise<readonly ChannelState[]>;
  /** Has a subscriber of a channel come or go, where the log knows of them. */
  setSubscribed?(key: string, isSubscribed: boolean): void;
  /** Starts the log again, where it outlives that. */
  restart?(): void;
}
type MaybePromise<T> = T | Promise<T>;

/** What the log needs for an event in each of its channels, in bytes, as documented. */
const ENTRY_COST = 256;

interface Publish {
  readonly do: "publish";
  readonly owner: number;
  /** Indices of the owner's own channels. The last one is an inbox. */
  readonly channels: readonly number[];
  /** In histories of tenants: the event is also in a channel of the next tenant. */
  readonly isShared: boolean;
  readonly size: number;
}
/** Events in new channels. */
interface Flood {
  readonly do: "flood";
  readonly owner: number;
  readonly events: number;
  readonly width: number;
  readonly size: number;
}
interface Subscribe {
  readonly do: "subscribe" | "unsubscribe";
  readonly owner: number;
  readonly channel: number;
}
type Step = Publish | Flood | Subscribe | { readonly do: "restart" };

export interface OwnersHistory {
  readonly by: "tenant" | "subject";
  readonly logBytes: number;
  readonly maxChannels: number;
  readonly steps: readonly Step[];
}

const CHANNELS = 4;
const OWNERS = 4;
const owner = fc.integer({ min: 0, max: OWNERS - 1 });
const channel = fc.integer({ min: 0, max: CHANNELS - 1 });
/** The first owners flood, and all of them publish. */
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("publish" as const),
      owner,
      channels: fc.uniqueArray(channel, { minLength: 1 }),
      isShared: fc.boolean(),
      size: fc.integer({ min: 1, max: 2_500 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("flood" as const),
      owner: fc.integer({ min: 0, max: 1 }),
      events: fc.integer({ min: 1, max: 30 }),
      width: fc.integer({ min: 1, max: 10 }),
      size: fc.integer({ min: 1, max: 2_000 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom("subscribe", "unsubscribe"), owner, channel }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("restart" as const) }) },
);

export const ownersHistories: fc.Arbitrary<OwnersHistory> = fc.record({
  by: fc.constantFrom("tenant", "subject"),
  logBytes: fc.integer({ min: 20_000, max: 120_000 }),
  maxChannels: fc.integer({ min: 20, max: 200 }),
  steps: fc.array(step, { minLength: 5, maxLength: 40 }),
});

/** The options of the log of a history. A channel is named after its owner. */
export const logOptionsOf = ({ by, logBytes, maxChannels }: OwnersHistory): LogOptions => ({
  logBytes,
  maxChannels,
  retention: { age: Infinity },
  tenant: by === "tenant" ? (name) => name.slice(0, name.indexOf("/")) : undefined,
});

const nameOf = (index: number): string => `owner${index}`;
const keyOf = (index: number, channelIndex: number): string =>
  channelIndex === CHANNELS - 1 ? `@${nameOf(index)}` : `#${nameOf(index)}/${channelIndex}`;

/** What one owner has published, or has had published into its channels. */
interface Account {
  bytes: number;
  /** The positions of the events of each of its channels. */
  readonly channels: Map<string, number[]>;
}

/** What happened in a history, so that a test can prove that something did. */
export interface OwnersOutcome {
  readonly faults: string[];
  /** Events that the log no longer holds. */
  lost: number;
  /** Channels that the log no longer knows. */
  forgotten: number;
  /** Checks of an owner that has something to lose, while another one has lost something. */
  checks: number;
  restarts: number;
}

/** Returns the log of an engine in this process. `start` starts the engine; `canRestart` tells whether its log outlives that. */
export function engineLog(start: () => Engine, canRestart: boolean): OwnersLog {
  let lastBytes = 0;
  const open = (): EngineSession =>
    start().open({
      position: Infinity,
      onAppended: ({ bytes }) => {
        lastBytes = bytes.length;
      },
      onOverrun: () => undefined,
    });
  let session = open();
  /** Keys with a subscriber. */
  const subscribed = new Set<string>();
  return {
    append(keys, text, subject) {
      const { seq } = session.append(keys, text, undefined, undefined, subject) as { readonly seq: number };
      return { seq, bytes: lastBytes };
    },
    states: (keys) =>
      keys.map((key) => {
        const { log } = session;
        const found = log.find(key);
        const record = found ?? log.pin(key);
        const held: number[] = [];
        for (let entry = record.at(0); entry; entry = record.at(held.length)) held.push(entry.seq);
        const { droppedThrough } = record;
        if (!found) log.unpin(record);
        return { held, droppedThrough, isForgotten: !found };
      }),
    setSubscribed(key, isSubscribed) {
      const record = session.log.find(key);
      if (isSubscribed && !subscribed.has(key)) {
        subscribed.add(key);
        session.log.pin(key);
      } else if (!isSubscribed && subscribed.delete(key) && record) session.log.unpin(record);
    },
    ...(canRestart && {
      restart() {
        session = open();
        for (const key of subscribed) session.log.pin(key);
      },
    }),
  };
}

/** Plays a history. */
export async function playOwners(history: OwnersHistory, log: OwnersLog): Promise<OwnersOutcome> {
  const { by, logBytes, maxChannels } = history;
  const outcome: OwnersOutcome = { faults: [], lost: 0, forgotten: 0, checks: 0, restarts: 0 };
  const accounts = new Map<string, Account>();
  let created = 0;
  // Tenants own channels, and subjects their inboxes. There may be this many owners of the two kinds together.
  const most = by === "tenant" ? 2 * OWNERS : OWNERS;

  async function publish(index: number, keys: readonly string[], size: number): Promise<void> {
    const { seq, bytes } = await log.append(keys, `data: ${"x".repeat(size)}\n\n`, nameOf(index));
    const touched = new Set<Account>();
    for (const key of keys) {
      const isTenant = by === "tenant" && key.startsWith("#");
      const name = isTenant ? `tenant ${key.slice(1, key.indexOf("/"))}` : nameOf(index);
      const account = accounts.get(name) ?? { bytes: 0, channels: new Map() };
      accounts.set(name, account);
      account.bytes += ENTRY_COST;
      touched.add(account);
      account.channels.set(key, [...(account.channels.get(key) ?? []), seq]);
    }
    for (const account of touched) account.bytes += bytes;
  }

  async function check(at: string): Promise<void> {
    let lost = 0;
    let forgotten = 0;
    for (const { channels } of accounts.values()) {
      const states = await log.states([...channels.keys()]);
      for (const [place, seqs] of [...channels.values()].entries()) {
        const { held, isForgotten } = states[place] as ChannelState;
        lost += seqs.filter((seq) => !held.includes(seq)).length;
        if (isForgotten) forgotten++;
      }
    }
    outcome.lost = Math.max(outcome.lost, lost);
    outcome.forgotten = Math.max(outcome.forgotten, forgotten);
    const fair = [...accounts].filter(
      ([, { bytes, channels }]) => bytes <= logBytes / most && channels.size <= maxChannels / most,
    );
    for (const [name, { channels }] of fair) {
      if (lost > 0) outcome.checks++;
      const states = await log.states([...channels.keys()]);
      for (const [place, [key, seqs]] of [...channels].entries()) {
        const { held, droppedThrough } = states[place] as ChannelState;
        if (held.join() !== seqs.join()) outcome.faults.push(`${at}: ${name} has lost events of ${key}`);
        if (droppedThrough >= (seqs[0] ?? 0)) outcome.faults.push(`${at}: ${name} has a gap in ${key}`);
      }
    }
    // Channels that nobody has published into: the common channel, and one of each tenant that keeps within its part.
    const unused =
      by === "tenant" ? fair.flatMap(([name]) => (name.startsWith("tenant ") ? [`#${name.slice(7)}/unused`] : [])) : [];
    for (const [place, { droppedThrough }] of (await log.states(["", ...unused])).entries())
      if (droppedThrough > 0)
        outcome.faults.push(`${at}: there is a gap in "${["", ...unused][place]}", which had no event`);
  }

  for (const [index, step] of history.steps.entries()) {
    if (step.do === "publish") {
      const keys = step.channels.map((each) => keyOf(step.owner, each));
      const isShared = step.isShared && by === "tenant";
      await publish(step.owner, isShared ? [...keys, keyOf((step.owner + 1) % OWNERS, 0)] : keys, step.size);
    } else if (step.do === "flood") {
      for (let event = 0; event < step.events; event++) {
        const keys = Array.from({ length: step.width }, () => `#${nameOf(step.owner)}/new ${created++}`);
        await publish(step.owner, keys, step.size);
      }
    } else if (step.do === "restart") {
      if (!log.restart) continue;
      outcome.restarts++;
      log.restart();
    } else log.setSubscribed?.(keyOf(step.owner, step.channel), step.do === "subscribe");
    await check(`step ${index} (${step.do})`);
    if (outcome.faults.length > 0) break;
  }
  return outcome;
}
