// A shared log in Redis: translates the operations of a shared log into scripts and messages.
import { BrokerError } from "../base/errors.ts";
import { randomName } from "../base/random.ts";
import type {
  AppendResult,
  Presence,
  PresenceResult,
  ReplayPage,
  StreamAnswer,
  StreamRequest,
} from "../engine/engine.ts";
import { eventFingerprint } from "../engine/idempotency.ts";
import type { RunStore } from "../engine/run-store.ts";
import type { Position } from "../event/position.ts";
import { ownerNameOf } from "../log/owner.ts";
import type { SharedHistoryBounds, SharedLog, SharedLogListener, SharedLogSession } from "../shared-log/shared-log.ts";
import { bound, ChannelRetention } from "./channel-retention.ts";
import { Commands } from "./commands.ts";
import { type EphemeralMessage, formatEphemeral, isEphemeral, parseEphemeral, SeenMessages } from "./ephemeral.ts";
import { engineDown, outcomeUnknown } from "./errors.ts";
import { Feed } from "./feed.ts";
import { History } from "./history.ts";
import { CheckpointAssembler, type CheckpointRequest, parseEvent, parsePeerCommand, parseSeq } from "./messages.ts";
import { type RedisOptions, type RedisSettings, resolveRedisOptions } from "./options.ts";
import { isRequest, PeerRequests } from "./requests.ts";
import { RedisRuns } from "./run-store.ts";
import { isOfRun, RunWatches } from "./run-watches.ts";

/** Keys in one call of the script `checkpoint`. */
const KEYS_PER_CALL = 2_000;
const PRESENCES_PER_CALL = 400;
/** Milliseconds for which client ids linger after this process has died, until a connection enters with another time. */
const DEFAULT_LINGER_MS = 60_000;
const DAY_MS = 86_400_000;
const MAX_BAR_MS = 365 * DAY_MS;
/** Peer commands remembered, so that none is executed twice. */
const MAX_STAMPS = 2_000;
/** Attempts to get a checkpoint in parts. The log may be replaced between two parts, but rarely three times in a row. */
const CHECKPOINT_ATTEMPTS = 3;

const positionArguments = (seen: Position | undefined): readonly [string, string] => [
  seen?.epoch ?? "",
  String(seen?.seq ?? 0),
];

/** Creates a log in Redis 7.0 or later, or in Valkey. @throws as {@link resolveRedisOptions} */
export function redisLog(options: RedisOptions): SharedLog {
  const settings = resolveRedisOptions(options);
  return { open: (listener) => new RedisSession(settings, listener) };
}

class RedisSession implements SharedLogSession {
  readonly lease: number;

  readonly #settings: RedisSettings;
  readonly #listener: SharedLogListener;
  readonly #commands: Commands;
  readonly #history: History;
  readonly #feed: Feed;
  readonly #peerRequests: PeerRequests;
  readonly #runWatches: RunWatches;
  readonly #process = randomName(16);
  readonly #retention: ChannelRetention;
  /** The checkpoints that were requested through this feed, by token. */
  readonly #requests = new Map<number, CheckpointRequest>();
  #assembler = new CheckpointAssembler();
  #lingerMs = DEFAULT_LINGER_MS;
  /** The stamps of peer commands that were executed. */
  readonly #executedStamps = new Set<string>();
  #lastStamp = "";
  /** The stamp of the last peer command before the feed was lost. Later ones may not have arrived. */
  #missedStampsAfter: string | undefined;
  /** The epoch of the last checkpoint, and what its events have to prove that they are from a script. */
  #secret: { readonly epoch: string; readonly secret: string } | undefined;
  /** The last event that came through this feed. An event of several channels arrives several times. */
  #lastEvent: Position | undefined;
  /** Number of ephemeral events that this process has sent. */
  #ephemerals = 0;
  #seenMessages = new SeenMessages();

  constructor(settings: RedisSettings, listener: SharedLogListener) {
    this.#settings = settings;
    this.#listener = listener;
    const { subscriber, base, commandTimeout } = settings;
    this.#retention = new ChannelRetention(settings.retention, settings.channels);
    this.lease = Math.ceil(settings.lease / 3);
    this.#commands = new Commands(settings, {
      onCommands: (isConnected) => {
        listener.onCommands(isConnected);
        if (isConnected) void this.#executeMissedPeerCommands();
      },
      onError: (error) => listener.onError(error),
      startArguments: (next, previous) => [...this.#lifeSign(), previous, next, base],
    });
    this.#history = new History(this.#commands, this.#retention);
    this.#peerRequests = new PeerRequests(this.#commands, {
      ...{ process: this.#process, base, commandTimeout },
      proof: () => this.#secret,
      carryOut: (request) => listener.onRequest?.(request) ?? Promise.reject(engineDown()),
      onError: (error) => listener.onError(error),
    });
    this.#feed = new Feed(
      async (connectionListener) => {
        if (typeof subscriber !== "function") return await subscriber.openFeed(connectionListener, "duplicate");
        return await (await subscriber()).openFeed(connectionListener, "itself");
      },
      [`${base}:inbox`, `${base}:checkpoint:${this.#process}`],
      commandTimeout,
      {
        onMessage: (channel, text) => this.#onMessage(channel, text),
        onFeed: (isConnected) => this.#onFeed(isConnected),
        onError: (error) => listener.onError(error),
      },
    );
    this.#runWatches = new RunWatches(this.#feed, base);
  }

  async append(
    keys: readonly string[],
    text: string,
    seen: Position | undefined,
    idempotencyKey: string | undefined,
    recipient: string | undefined,
    subject?: string,
  ): Promise<AppendResult> {
    const { base, idempotencyWindow, maxChannels, redisBytes, tenant } = this.#settings;
    const owners = keys.map((key) => ownerNameOf(tenant, key, subject));
    const retention = this.#retention;
    const retentions = [retention.argumentOf(keys), retention.engineAge, retention.hasOwn ? "1" : ""];
    const isOfOne = owners.every((owner) => owner === owners[0]);
    const fingerprint = idempotencyKey === undefined ? "" : eventFingerprint(keys, text);
    const commands = this.#commands;
    const number = String(++commands.appends);
    const { answer, isReplicated } = await commands.change("append", [
      ...[base, randomName(12), commands.counter, number, ...positionArguments(seen)],
      ...[idempotencyKey ?? "", fingerprint, bound(idempotencyWindow), recipient ?? ""],
      ...[...retentions, bound(maxChannels), bound(redisBytes), retention.ttl],
      ...[text, String(keys.length), ...keys, ...(isOfOne ? owners.slice(0, 1) : owners)],
    ]);
    const [result, epoch = "", seq, repeated] = answer as string[];
    if (result === "key-reused")
      throw new BrokerError("key-reused", "Event refused: its key was used before, for another event.");
    if (result === "unknown-client")
      throw new BrokerError("unknown-client", "Event refused: no client with this id is connected, or was lately.");
    if (result === "no-counter") commands.onCounterLost();
    if (result !== "ok" || !isReplicated) throw outcomeUnknown();
    return { epoch, seq: parseSeq(seq), repeated: repeated === "1" };
  }

  async sendEphemeral(keys: readonly string[], text: string): Promise<void> {
    const { base } = this.#settings;
    if (!this.#secret) throw engineDown();
    const message: EphemeralMessage = {
      ...this.#secret,
      process: this.#process,
      number: ++this.#ephemerals,
      keys,
      text,
    };
    const channels = new Set(keys.map((key) => (key.startsWith("@") ? `${base}:inbox` : `${base}:feed:${key}`)));
    const bytes = formatEphemeral(message);
    await Promise.all(Array.from(channels, (channel) => this.#commands.send(["PUBLISH", channel, bytes])));
  }

  subscribe(keys: readonly string[]): Promise<void> {
    return this.#feed.subscribe(this.#feedChannels(keys));
  }

  unsubscribe(keys: readonly string[]): Promise<void> {
    return this.#feed.unsubscribe(this.#feedChannels(keys));
  }

  async requestCheckpoint(token: number, keys: readonly string[], seen: Position | undefined): Promise<void> {
    const parts = Math.max(1, Math.ceil(keys.length / KEYS_PER_CALL));
    const request = { keys, nonce: randomName(12) };
    this.#requests.set(token, request);
    try {
      for (let attempt = 0; attempt < CHECKPOINT_ATTEMPTS; attempt++)
        if (await this.#sendCheckpoint(parts, token, request, seen)) return;
      throw engineDown();
    } catch (error) {
      this.#requests.delete(token);
      throw error;
    }
  }

  /** Returns `false` if the log was replaced between two parts. */
  async #sendCheckpoint(
    parts: number,
    token: number,
    { keys, nonce }: CheckpointRequest,
    seen: Position | undefined,
  ): Promise<boolean> {
    const answers = [];
    for (let part = 1; part <= parts; part++) {
      const keysOfPart = keys.slice((part - 1) * KEYS_PER_CALL, part * KEYS_PER_CALL);
      const counts = [`${token} ${nonce}`, String(part), String(parts)];
      const { base } = this.#settings;
      const args = [base, randomName(12), this.#process, ...positionArguments(seen), ...counts, this.#retention.ttl];
      answers.push(this.#commands.run("checkpoint", [...args, ...keysOfPart]));
    }
    return (await Promise.all(answers)).at(-1) === "ok";
  }

  read(epoch: string, keys: readonly string[], after: number, bytes: number): Promise<ReplayPage> {
    return this.#history.read(epoch, keys, after, bytes);
  }

  historyBounds(
    ...[epoch, keys, after, max, last]: Parameters<SharedLogSession["historyBounds"]>
  ): Promise<SharedHistoryBounds> {
    return this.#history.bounds(epoch, keys, after, max, last);
  }

  renewFeed(): void {
    this.#feed.renew();
  }

  async enter(
    presences: readonly Presence[],
    rule: "allow" | "reject" | "replace",
    lingerMs: number,
  ): Promise<readonly PresenceResult[]> {
    this.#lingerMs = lingerMs;
    const answers = this.#presenceArguments(presences).map((args) =>
      this.#commands.run("enter", [...this.#lifeSign(), rule, this.#settings.base, ...args]),
    );
    const all = (await Promise.all(answers)).flat() as string[];
    return all.map((answer) => (answer === "barred" || answer === "taken" ? answer : parseSeq(answer)));
  }

  async leave({ clientId, subject }: Presence, lingerMs: number): Promise<void> {
    const args = [this.#process, clientId, subject ?? "", bound(Math.min(lingerMs, DAY_MS))];
    await this.#commands.run("leave", args);
  }

  async linger(ids: ReadonlyMap<string, number>): Promise<void> {
    const all = [...ids];
    for (let index = 0; index < all.length; index += PRESENCES_PER_CALL) {
      const page = all.slice(index, index + PRESENCES_PER_CALL);
      await this.#commands.run(
        "linger",
        page.flatMap(([id, ms]) => [id, bound(Math.min(ms, DAY_MS))]),
      );
    }
  }

  async renew(presences: readonly Presence[]): Promise<void> {
    const pages = this.#presenceArguments(presences);
    if (pages.length === 0) pages.push([]);
    const answers = pages.map((args, index) => {
      const counts = [String(index + 1), String(pages.length)];
      const { engineAge } = this.#retention;
      return this.#commands.run("renew", [...this.#lifeSign(), ...counts, this.#commands.counter, engineAge, ...args]);
    });
    await Promise.all(answers);
  }

  async isBarred(clientId: string): Promise<boolean> {
    return (await this.#commands.run("isBarred", [clientId])) === "1";
  }

  async disconnect(clientId: string, barMs: number, reason = ""): Promise<number> {
    const barFor = bound(Math.min(barMs, MAX_BAR_MS));
    const args = [this.#process, clientId, barFor, this.#settings.base, encodeURIComponent(reason)];
    return Number(await this.#commands.run("disconnect", args));
  }

  request(request: StreamRequest): Promise<readonly StreamAnswer[]> {
    return this.#peerRequests.send(request);
  }

  openRuns(started: () => Promise<void> | undefined): RunStore {
    return new RedisRuns(this.#commands, this.#runWatches, this.#settings.base, started);
  }

  close(lingerMs: number): void {
    const args = [this.#process, bound(Math.min(lingerMs, DAY_MS)), this.#commands.counter];
    this.#commands.run("stop", args).catch(() => undefined);
    this.#commands.close();
    this.#feed.close();
    this.#runWatches.close();
  }

  /** The arguments with which a process says that it is alive. */
  #lifeSign(): readonly string[] {
    return [this.#process, bound(this.#settings.lease), bound(Math.min(this.#lingerMs, DAY_MS))];
  }

  #feedChannels(keys: readonly string[]): readonly string[] {
    return keys.map((key) => `${this.#settings.base}:feed:${key}`);
  }

  /** Returns client ids and subjects as arguments, for one call each. */
  #presenceArguments(presences: readonly Presence[]): string[][] {
    const pages: string[][] = [];
    for (let index = 0; index < presences.length; index += PRESENCES_PER_CALL) {
      const page = presences.slice(index, index + PRESENCES_PER_CALL);
      pages.push(page.flatMap(({ clientId, subject }) => [clientId, subject ?? ""]));
    }
    return pages;
  }

  #onFeed(isConnected: boolean): void {
    this.#lastEvent = undefined;
    this.#seenMessages = new SeenMessages();
    this.#assembler = new CheckpointAssembler();
    this.#requests.clear();
    if (isConnected) this.#missedStampsAfter ??= this.#lastStamp;
    this.#listener.onFeed(isConnected);
    this.#runWatches.onFeed(isConnected);
    if (isConnected) void this.#executeMissedPeerCommands();
  }

  #onMessage(channel: string, text: string): void {
    try {
      this.#handleMessage(channel.slice(this.#settings.base.length + 1), text);
    } catch (error) {
      this.#listener.onError(error);
    }
  }

  #handleMessage(channel: string, text: string): void {
    if (isOfRun(channel)) this.#runWatches.onMessage(channel, text);
    else if (isRequest(text)) this.#peerRequests.receive(text);
    else if (channel.startsWith("checkpoint:")) this.#onCheckpointPart(text);
    else if (channel === "inbox" && text.startsWith("!")) this.#executePeerCommand(text);
    else if (isEphemeral(text)) this.#onEphemeral(text);
    else this.#onEvent(text);
  }

  #onCheckpointPart(text: string): void {
    const received = this.#assembler.take(text, this.#requests);
    if (!received) return;
    const { checkpoint, secret } = received;
    this.#requests.delete(checkpoint.token);
    this.#secret = { epoch: checkpoint.epoch, secret };
    this.#listener.onCheckpoint(checkpoint);
  }

  #onEphemeral(text: string): void {
    const message = parseEphemeral(text);
    const { epoch, secret, keys } = message;
    if (epoch !== this.#secret?.epoch) return;
    if (secret !== this.#secret.secret) throw new Error("Redis message refused: no process of this log sent it.");
    if (this.#seenMessages.isFirst(message)) this.#listener.onEphemeral?.(epoch, keys, message.text);
  }

  #onEvent(text: string): void {
    const { event, secret } = parseEvent(text);
    const { epoch, seq } = event;
    // Of another epoch nothing is believed: the listener asks for a checkpoint.
    if (epoch === this.#secret?.epoch && secret !== this.#secret.secret)
      throw new Error(`Redis message refused: no script sent the event ${epoch}-${seq}.`);
    // The script sends an event to all of its channels at once, so its copies follow one another.
    if (this.#lastEvent?.epoch === epoch && seq === this.#lastEvent.seq) return;
    this.#lastEvent = { epoch, seq };
    this.#listener.onEvent(event);
  }

  #executePeerCommand(text: string): void {
    const { from, command, stamp } = parsePeerCommand(text);
    this.#lastStamp = stamp;
    if (this.#executedStamps.has(stamp)) return;
    this.#executedStamps.add(stamp);
    for (const oldest of this.#executedStamps) {
      if (this.#executedStamps.size <= MAX_STAMPS) break;
      this.#executedStamps.delete(oldest);
    }
    if (from !== this.#process) this.#listener.onCommand(command);
  }

  /** Executes peer commands that were sent while the feed was lost. Before its first feed, a process has no connection that one could concern. */
  async #executeMissedPeerCommands(): Promise<void> {
    const stamp = this.#missedStampsAfter;
    if (stamp === undefined) return;
    try {
      const answers = (await this.#commands.run("commandsAfter", [stamp])) as string[];
      if (this.#missedStampsAfter === stamp) this.#missedStampsAfter = undefined;
      if (stamp === "") this.#lastStamp ||= answers[0] ?? "";
      else for (const text of answers) this.#executePeerCommand(text);
    } catch {
      // Redis commands cannot be given. This is called again when they can.
    }
  }
}
