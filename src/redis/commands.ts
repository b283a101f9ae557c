// Sends commands through the application's client, and knows whether Redis can take them.
import { randomName } from "../base/random.ts";
import { after, now } from "../base/runtime.ts";
import type { ClientAdapter } from "./clients/connection.ts";
import { engineDown, hadNoEffect, isReply, isScriptError, needsPreparation, outcomeUnknown } from "./errors.ts";
import type { RedisSettings } from "./options.ts";
import { COUNT_NEWEST, COUNT_THROUGH, HISTORY_BOUNDS, READ } from "./scripts/history-scripts.ts";
import { APPEND, CHECKPOINT } from "./scripts/log-scripts.ts";
import {
  COMMANDS_AFTER,
  DISCONNECT,
  ENTER,
  IS_BARRED,
  LEAVE,
  LINGER,
  RENEW,
  REQUEST,
  START,
  STOP,
} from "./scripts/presence-scripts.ts";
import { RUN_APPEND, RUN_READ, RUN_RENEW, RUN_START, RUN_STOP } from "./scripts/run-scripts.ts";

export type ScriptName =
  | "append"
  | "checkpoint"
  | "read"
  | "historyBounds"
  | "countNewest"
  | "countThrough"
  | "start"
  | "enter"
  | "leave"
  | "linger"
  | "commandsAfter"
  | "renew"
  | "isBarred"
  | "disconnect"
  | "request"
  | "stop"
  | "runStart"
  | "runAppend"
  | "runRenew"
  | "runRead"
  | "runStop";
const SCRIPTS: Readonly<Record<ScriptName, string>> = {
  append: APPEND,
  checkpoint: CHECKPOINT,
  read: READ,
  historyBounds: HISTORY_BOUNDS,
  countNewest: COUNT_NEWEST,
  countThrough: COUNT_THROUGH,
  start: START,
  enter: ENTER,
  leave: LEAVE,
  linger: LINGER,
  commandsAfter: COMMANDS_AFTER,
  renew: RENEW,
  isBarred: IS_BARRED,
  disconnect: DISCONNECT,
  request: REQUEST,
  stop: STOP,
  runStart: RUN_START,
  runAppend: RUN_APPEND,
  runRenew: RUN_RENEW,
  runRead: RUN_READ,
  runStop: RUN_STOP,
};

/** The interval at which a server that is not ready is asked again. */
const PROBE_MS = 500;

/**
 * Milliseconds for which answers are read before a command whose time is over is given up: the first at least, as long as its time has been over
 * at most, and never more than the second.
 */
const MIN_READ_MS = 10;
const MAX_READ_MS = 1_000;
const DAY_MS = 86_400_000;

/** A command that is not answered yet. */
interface PendingCommand {
  readonly deadline: number;
  readonly isAppend: boolean;
  reject(error: unknown): void;
}

/** Receives whether commands can be given. */
export interface CommandsListener {
  onCommands(isConnected: boolean): void;
  onError(error: unknown): void;
  /** Returns the arguments of the script `start`. From now on, appends are counted under the name `next` and no longer under `previous`. */
  startArguments(next: string, previous: string): readonly string[];
}

/**
 * Sends commands through the application's client. A command is given to the client library only while the library sends it at once. When
 * the connection is lost or the time is up, the command is over for its caller. The library may still send it later. That has no effect,
 * because appends are counted under another name by the time that commands can be given again.
 */
export class Commands {
  /** The name of the counter of appends. New whenever commands can be given again. */
  counter = "";
  /** Appends given under this name. */
  appends = 0;

  readonly #client: ClientAdapter;
  readonly #base: string;
  readonly #timeoutMs: number;
  readonly #waitReplicas: number;
  readonly #listener: CommandsListener;
  readonly #hashes = new Map<ScriptName, string>();
  readonly #pending = new Set<PendingCommand>();
  readonly #stopWatching: () => void;
  /** Incremented whenever commands become available or unavailable, so that work begun before is recognized as obsolete. */
  #generation = 0;
  #isAvailable = false;
  /** Whether the adapter has reported the connection. A client may be connected before that, and the report would count as another connection. */
  #isReported: boolean;
  #isClosed = false;
  #cancelProbe: (() => void) | undefined;
  #cancelDeadline: (() => void) | undefined;

  constructor(
    {
      client,
      base,
      commandTimeout,
      waitReplicas,
    }: Pick<RedisSettings, "client" | "base" | "commandTimeout" | "waitReplicas">,
    listener: CommandsListener,
  ) {
    this.#client = client;
    this.#base = base;
    this.#timeoutMs = commandTimeout;
    this.#waitReplicas = waitReplicas;
    this.#listener = listener;
    this.#isReported = client.isReady;
    this.#stopWatching = client.watch({
      onReady: () => this.#onReady(),
      onLost: () => {
        this.#isReported = false;
        this.#onLost(undefined);
      },
      onError: (error) => listener.onError(error),
    });
    this.#scheduleProbe(0);
  }

  /**
   * Runs a script. Rejects with `publish-outcome-unknown` if an append may have had an effect, and with `engine-down` for any other failure.
   */
  run(name: ScriptName, args: readonly string[], isAppend = false): Promise<unknown> {
    return this.send(["EVALSHA", this.#hashes.get(name) ?? "", "1", this.#base, ...args], isAppend);
  }

  /**
   * Runs a script that changes something, and waits for the replicas that the change needs. Returns the script's answer, and whether enough of
   * them have the change. Rejects as an append does.
   */
  async change(
    name: ScriptName,
    args: readonly string[],
  ): Promise<{ readonly answer: unknown; readonly isReplicated: boolean }> {
    const replicas = this.#waitReplicas;
    // Both commands are sent before anything is awaited. That keeps the order of the calls.
    const running = this.run(name, args, true);
    const timeoutMs = Math.ceil(Math.min(this.#timeoutMs, DAY_MS) / 2);
    const waiting =
      replicas > 0 ? this.send(["WAIT", String(replicas), String(timeoutMs)], true) : Promise.resolve(replicas);
    const [answer, reached] = await Promise.allSettled([running, waiting]);
    if (answer.status === "rejected") throw answer.reason;
    return { answer: answer.value, isReplicated: reached.status === "fulfilled" && Number(reached.value) >= replicas };
  }

  /** Redis has lost the counter of appends. Without it, an append that the library sends twice would not be recognized. */
  onCounterLost(): never {
    this.suspend();
    throw engineDown();
  }

  /** Sends a command. Rejects as `run` does. */
  send(command: readonly string[], isAppend = false): Promise<unknown> {
    if (!this.#isAvailable) return Promise.reject(engineDown());
    if (!this.#isReady) {
      this.#onLost(undefined);
      return Promise.reject(engineDown());
    }
    return new Promise((resolve, reject) => {
      const pending: PendingCommand = { deadline: now() + this.#timeoutMs, isAppend, reject };
      this.#pending.add(pending);
      this.#cancelDeadline ??= after(this.#timeoutMs, () => this.#checkDeadline(), true);
      this.#execute(command).then(
        (reply) => {
          this.#pending.delete(pending);
          resolve(reply);
        },
        (error: unknown) => this.#onFailed(pending, error),
      );
    });
  }

  close(): void {
    this.#isClosed = true;
    this.#isAvailable = false;
    this.#generation++;
    this.#stopWatching();
    this.#cancelProbe?.();
    this.#cancelDeadline?.();
    this.#rejectAll(undefined);
  }

  get #isReady(): boolean {
    return this.#isReported && this.#client.isReady;
  }

  /** Makes a rejection of an error that the library throws. */
  async #execute(command: readonly string[]): Promise<unknown> {
    return await this.#client.send(command);
  }

  #onFailed(pending: PendingCommand, error: unknown): void {
    if (!this.#pending.delete(pending)) return;
    if (isReply(error)) {
      const isDown = hadNoEffect(error) || !pending.isAppend;
      pending.reject(isDown ? engineDown(error) : outcomeUnknown(error));
      if (isScriptError(error)) this.#listener.onError(error);
      if (needsPreparation(error)) this.suspend();
      return;
    }
    pending.reject(pending.isAppend ? outcomeUnknown(error) : engineDown(error));
    this.#onLost(error);
  }

  /**
   * Gives up the connection if its oldest command took too long. All later commands wait behind that one. Timers run before sockets are read, so
   * in a process that stood still the answer may have arrived in time. Where the whole machine stood still, the server needs time as well.
   */
  #checkDeadline(overdue?: PendingCommand): void {
    this.#cancelDeadline = undefined;
    const [oldest] = this.#pending;
    if (!oldest) return;
    const left = oldest.deadline - now();
    if (left > 0) this.#cancelDeadline = after(left, () => this.#checkDeadline(), true);
    else if (oldest === overdue) this.#onLost(new Error(`Redis did not answer within ${this.#timeoutMs} ms.`));
    else
      this.#cancelDeadline = after(Math.min(MIN_READ_MS - left, MAX_READ_MS), () => this.#checkDeadline(oldest), true);
  }

  #rejectAll(cause: unknown): void {
    const all = [...this.#pending];
    this.#pending.clear();
    for (const { isAppend, reject } of all) reject(isAppend ? outcomeUnknown(cause) : engineDown(cause));
  }

  /** The connection was lost, or counts as lost. */
  #onLost(cause: unknown): void {
    if (this.#isClosed) return;
    this.#rejectAll(cause);
    this.suspend();
  }

  /** Gives no commands until the server is prepared again. Commands that are under way can still be answered. */
  suspend(): void {
    if (this.#isClosed || !this.#isAvailable) return;
    this.#isAvailable = false;
    this.#generation++;
    this.#listener.onCommands(false);
    this.#scheduleProbe(0);
  }

  /** The library has connected. A probe over an earlier connection may never be answered, so a new one begins. */
  #onReady(): void {
    this.#isReported = true;
    if (this.#isAvailable) this.#onLost(undefined);
    else {
      this.#generation++;
      this.#scheduleProbe(0);
    }
  }

  #scheduleProbe(delayMs: number): void {
    this.#cancelProbe?.();
    this.#cancelProbe = undefined;
    if (this.#isClosed) return;
    this.#cancelProbe = after(delayMs, () => void this.#prepare(), true);
  }

  /** Waits until the server answers, and prepares it. Without an answer, waits until the library connects again. */
  async #prepare(): Promise<void> {
    if (!this.#isReady) return this.#scheduleProbe(PROBE_MS);
    const generation = this.#generation;
    try {
      await this.#execute(["PING"]);
      if (generation !== this.#generation) return;
      const names = Object.keys(SCRIPTS) as ScriptName[];
      const hashes = await Promise.all(names.map((name) => this.#execute(["SCRIPT", "LOAD", SCRIPTS[name]])));
      if (generation !== this.#generation) return;
      for (const [index, name] of names.entries()) this.#hashes.set(name, String(hashes[index]));
      const next = randomName(16);
      const args = this.#listener.startArguments(next, this.counter);
      await this.#execute(["EVALSHA", this.#hashes.get("start") ?? "", "1", this.#base, ...args]);
      if (generation !== this.#generation || !this.#isReady) return this.#scheduleProbe(PROBE_MS);
      this.counter = next;
      this.appends = 0;
      this.#generation++;
      this.#isAvailable = true;
      this.#listener.onCommands(true);
    } catch (error) {
      if (generation !== this.#generation) return;
      this.#listener.onError(error);
      this.#scheduleProbe(PROBE_MS);
    }
  }
}
