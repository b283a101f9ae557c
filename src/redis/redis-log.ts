import { BrokerError } from "../base/errors.ts";
import { randomName } from "../base/random.ts";
import type { AppendResult, Presence, PresenceResult, ReplayPage, StoredEvent } from "../engine/engine.ts";
import { fingerprint } from "../engine/idempotency.ts";
import type { MaxReplay } from "../log/resume.ts";
import type { SharedHistoryBounds, SharedLog, SharedLogListener, SharedLogSession } from "../shared-log/shared-log.ts";
import { Commands } from "./commands.ts";
import { down, unknown } from "./errors.ts";
import { Feed } from "./feed.ts";
import { Assembly, parseMessage, parseOrder, parseSeq } from "./messages.ts";
import { type RedisOptions, type RedisSettings, resolveRedisOptions } from "./options.ts";

/** A position that this process knows of. */
type Seen = { readonly epoch: string; readonly seq: number } | undefined;

/** Keys that a mark asks for in one call, and presences that one call makes known. */
const KEYS_A_CALL = 5_000;
const PRESENCES_A_CALL = 1_000;
/** How long what a process had can be written to after the process died, unless it told otherwise. */
const LINGER = 60_000;
const DAY = 86_400_000;
/** Orders remembered, so that none is carried out twice. */
const ORDERS = 2_000;

/** A number as scripts take it; what has no bound is below 0. */
const bound = (value: number): string => (value === Infinity ? "-1" : String(Math.ceil(value)));

/** A log in Redis 7.0 or later, or Valkey, as {@link SharedLog}. @throws as {@link resolveRedisOptions} */
export function redisLog(options: RedisOptions): SharedLog {
  const settings = resolveRedisOptions(options);
  return { open: (listener) => new RedisSession(settings, listener) };
}

class RedisSession implements SharedLogSession {
  readonly lease: number;

  readonly #settings: RedisSettings;
  readonly #listener: SharedLogListener;
  readonly #commands: Commands;
  readonly #feed: Feed;
  readonly #process = randomName(16);
  readonly #retention: readonly string[];
  /** Milliseconds that the log is kept which nobody uses; below 0 for ever. */
  readonly #ttl: string;
  /** The keys of marks that were asked for in several parts, by token. */
  readonly #asked = new Map<number, readonly string[]>();
  #assembly = new Assembly();
  #linger = LINGER;
  /** Orders that were carried out, and the last one of them. */
  readonly #orders = new Set<string>();
  #lastOrder = "";
  /** What was given after this one may not have come. */
  #ordersSince: string | undefined;
  /** The last event that came through this feed: one of several channels comes several times. */
  #last: Seen;

  constructor(settings: RedisSettings, listener: SharedLogListener) {
    this.#settings = settings;
    this.#listener = listener;
    const { client, subscriber, base, commandTimeout, retention } = settings;
    this.#retention = [bound(retention.events), bound(retention.bytes), bound(retention.age)];
    this.#ttl = retention.age === Infinity ? "-1" : bound(Math.max(DAY, retention.age * 2));
    this.lease = Math.ceil(settings.lease / 3);
    this.#commands = new Commands(client, base, commandTimeout, {
      commands: (isThere) => {
        listener.onCommands(isThere);
        if (isThere) void this.#askOrders();
      },
      failed: (error) => listener.onError(error),
      hello: (next, before) => [...this.#alive(), before, next, base],
    });
    this.#feed = new Feed(
      async (events) => {
        if (typeof subscriber !== "function") return await subscriber.feed(events, false);
        return await (await subscriber()).feed(events, true);
      },
      [`${base}:inbox`, `${base}:echo:${this.#process}`],
      commandTimeout,
      {
        message: (channel, text) => this.#arrived(channel, text),
        feed: (isThere) => {
          this.#last = undefined;
          this.#assembly = new Assembly();
          this.#asked.clear();
          if (isThere) this.#ordersSince ??= this.#lastOrder;
          listener.onFeed(isThere);
          if (isThere) void this.#askOrders();
        },
        failed: (error) => listener.onError(error),
      },
    );
  }

  async append(
    keys: readonly string[],
    text: string,
    seen: Seen,
    nonce: string | undefined,
    recipient: string | undefined,
  ): Promise<AppendResult> {
    const { base, idempotencyWindow, maxChannels, waitReplicas, commandTimeout } = this.#settings;
    const print = nonce === undefined ? "" : fingerprint(`${[...keys].sort().join("\n")}\n${text}`);
    const commands = this.#commands;
    // Nothing is awaited before both are given: that is what keeps the order.
    const number = String(++commands.appends);
    const given = commands.run(
      "append",
      [
        ...[
          base,
          randomName(12),
          commands.session,
          number,
          ...position(seen),
          nonce ?? "",
          print,
          bound(idempotencyWindow),
        ],
        ...[recipient ?? "", ...this.#retention, bound(maxChannels), this.#ttl, text, ...keys],
      ],
      true,
    );
    const replicas =
      waitReplicas > 0
        ? commands.give(["WAIT", String(waitReplicas), String(Math.ceil(Math.min(commandTimeout, DAY) / 2))], true)
        : Promise.resolve(waitReplicas);
    const [answer, count] = await Promise.allSettled([given, replicas]);
    if (answer.status === "rejected") throw answer.reason;
    const [what, epoch = "", seq, repeated] = answer.value as string[];
    if (what === "reused")
      throw new BrokerError("key-reused", "Event refused: its key was used before, for another event.");
    if (what === "unknown")
      throw new BrokerError("unknown-client", "Event refused: there is no client with this id, nor was one lately.");
    if (what === "gone") {
      // What appends are counted by was lost, so that one which comes twice could not be told.
      commands.suspend();
      throw down();
    }
    if (what !== "ok") throw unknown();
    if (count.status === "rejected" || Number(count.value) < waitReplicas) throw unknown();
    return { epoch, seq: parseSeq(seq), repeated: repeated === "1" };
  }

  subscribe(keys: readonly string[]): Promise<void> {
    return this.#feed.subscribe(this.#channels(keys));
  }

  unsubscribe(keys: readonly string[]): Promise<void> {
    return this.#feed.unsubscribe(this.#channels(keys));
  }

  async requestCheckpoint(token: number, keys: readonly string[], seen: Seen): Promise<void> {
    const parts = Math.max(1, Math.ceil(keys.length / KEYS_A_CALL));
    if (parts > 1) this.#asked.set(token, keys);
    try {
      await this.#markIn(parts, token, keys, seen);
    } catch (error) {
      this.#asked.delete(token);
      throw error;
    }
  }

  async #markIn(parts: number, token: number, keys: readonly string[], seen: Seen): Promise<void> {
    // The log may begin anew between two parts; hardly three times in a row.
    for (let attempt = 0; attempt < 3; attempt++) {
      const answers = [];
      for (let part = 1; part <= parts; part++) {
        const some = keys.slice((part - 1) * KEYS_A_CALL, part * KEYS_A_CALL);
        const counts = [String(token), String(part), String(parts)];
        const { base } = this.#settings;
        const args = [base, randomName(12), this.#process, ...position(seen), ...counts, this.#ttl, ...some];
        answers.push(this.#commands.run("mark", args));
      }
      if ((await Promise.all(answers)).at(-1) === "ok") return;
    }
    throw down();
  }

  async read(epoch: string, keys: readonly string[], after: number, bytes: number): Promise<ReplayPage> {
    const args = [epoch, String(after), bound(Math.min(bytes, Number.MAX_SAFE_INTEGER)), ...this.#retention, ...keys];
    const answer = (await this.#commands.run("read", args)) as string[];
    const [current = "", through, dropped = ""] = answer;
    if (through === undefined) return { epoch: current, records: [], through: 0, droppedThrough: keys.map(() => 0) };
    const records: StoredEvent[] = [];
    for (let index = 3; index + 2 < answer.length; index += 3) {
      const [seq, names = "", text = ""] = answer.slice(index, index + 3);
      records.push({ seq: parseSeq(seq), keys: names.split("\n"), text });
    }
    const droppedOf = dropped === "" ? [] : dropped.split(" ").map(parseSeq);
    return { epoch: current, records, through: parseSeq(through), droppedThrough: droppedOf };
  }

  async historyBounds(
    epoch: string,
    keys: readonly string[],
    from: number,
    max: MaxReplay,
  ): Promise<SharedHistoryBounds> {
    const most = [bound(max.events ?? Infinity), bound(max.bytes ?? Infinity)];
    const args = [epoch, String(from), ...most, ...this.#retention, ...keys];
    const [current = "", head, floor, ...lines] = (await this.#commands.run("survey", args)) as string[];
    const channels = lines.map((line) => {
      const [dropped, oldest, next] = line.split(" ");
      return { droppedThrough: parseSeq(dropped), oldest: optional(oldest), next: optional(next) };
    });
    return { epoch: current, head: parseSeq(head), floor: parseSeq(floor), channels };
  }

  renewFeed(): void {
    this.#feed.renew();
  }

  async enter(
    presences: readonly Presence[],
    rule: "allow" | "reject" | "replace",
    linger: number,
  ): Promise<readonly PresenceResult[]> {
    this.#linger = linger;
    const answers = this.#pages(presences).map((some) =>
      this.#commands.run("enter", [...this.#alive(), rule, this.#settings.base, ...some]),
    );
    const all = (await Promise.all(answers)).flat() as string[];
    return all.map((answer) => (answer === "barred" || answer === "taken" ? answer : parseSeq(answer)));
  }

  async leave({ clientId, subject }: Presence, linger: number): Promise<void> {
    const args = [this.#process, clientId, subject ?? "", bound(Math.min(linger, DAY))];
    await this.#commands.run("leave", args);
  }

  async linger(ids: ReadonlyMap<string, number>): Promise<void> {
    const all = [...ids];
    for (let index = 0; index < all.length; index += PRESENCES_A_CALL) {
      const some = all.slice(index, index + PRESENCES_A_CALL);
      await this.#commands.run(
        "linger",
        some.flatMap(([id, ms]) => [id, bound(Math.min(ms, DAY))]),
      );
    }
  }

  async renew(presences: readonly Presence[]): Promise<void> {
    const pages = this.#pages(presences);
    if (pages.length === 0) pages.push([]);
    const answers = pages.map((some, index) =>
      this.#commands.run("renew", [
        ...this.#alive(),
        String(index + 1),
        String(pages.length),
        this.#commands.session,
        ...some,
      ]),
    );
    await Promise.all(answers);
  }

  async isBarred(clientId: string): Promise<boolean> {
    return (await this.#commands.run("barred", [clientId])) === "1";
  }

  async disconnect(clientId: string, barFor: number): Promise<number> {
    const args = [this.#process, clientId, bound(Math.min(barFor, 365 * DAY)), this.#settings.base];
    return Number(await this.#commands.run("disconnect", args));
  }

  close(linger: number): void {
    const args = [this.#process, bound(Math.min(linger, DAY)), this.#commands.session];
    this.#commands.run("part", args).catch(() => undefined);
    this.#commands.close();
    this.#feed.close();
  }

  #alive(): readonly string[] {
    return [this.#process, bound(this.#settings.lease), bound(Math.min(this.#linger, DAY))];
  }

  #channels(keys: readonly string[]): readonly string[] {
    return keys.map((key) => `${this.#settings.base}:f:${key}`);
  }

  #pages(presences: readonly Presence[]): string[][] {
    const pages: string[][] = [];
    for (let index = 0; index < presences.length; index += PRESENCES_A_CALL) {
      const some = presences.slice(index, index + PRESENCES_A_CALL);
      pages.push(some.flatMap(({ clientId, subject }) => [clientId, subject ?? ""]));
    }
    return pages;
  }

  #arrived(channel: string, text: string): void {
    try {
      this.#take(channel.slice(this.#settings.base.length + 1), text);
    } catch (error) {
      this.#listener.onError(error);
    }
  }

  #take(channel: string, text: string): void {
    if (channel.startsWith("echo:")) {
      const mark = this.#assembly.take(text, (token) => this.#asked.get(token));
      if (!mark) return;
      this.#asked.delete(mark.token);
      this.#listener.onCheckpoint(mark);
    } else if (channel === "inbox" && text.startsWith("!")) {
      this.#takeOrder(text);
    } else {
      const message = parseMessage(text);
      const { epoch, seq } = message;
      if (this.#last?.epoch === epoch && seq <= this.#last.seq) return;
      this.#last = { epoch, seq };
      this.#listener.onEvent(message);
    }
  }

  #takeOrder(text: string): void {
    const { from, order, id } = parseOrder(text);
    this.#lastOrder = id;
    if (this.#orders.has(id)) return;
    this.#orders.add(id);
    for (const oldest of this.#orders) {
      if (this.#orders.size <= ORDERS) break;
      this.#orders.delete(oldest);
    }
    if (from !== this.#process) this.#listener.onCommand(order);
  }

  /** Carries out what it was not told while the feed was lost; of before its first one there is nothing. */
  async #askOrders(): Promise<void> {
    const since = this.#ordersSince;
    if (since === undefined) return;
    try {
      const answers = (await this.#commands.run("orders", [since])) as string[];
      if (this.#ordersSince === since) this.#ordersSince = undefined;
      if (since === "") this.#lastOrder ||= answers[0] ?? "";
      else for (const text of answers) this.#takeOrder(text);
    } catch {
      // Commands are away; it is asked again when they can be given.
    }
  }
}

const position = (seen: Seen): readonly [string, string] => [seen?.epoch ?? "", String(seen?.seq ?? 0)];

const optional = (seq: string | undefined): number | undefined => (seq === "-" ? undefined : parseSeq(seq));
