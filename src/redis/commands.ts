import { randomName } from "../base/random.ts";
import { after, now } from "../base/runtime.ts";
import type { Wrapped } from "./clients/connection.ts";
import { down, hadNoEffect, isReply, isScriptError, meansAway, unknown } from "./errors.ts";
import { APPEND, MARK, READ, SURVEY } from "./scripts/log-scripts.ts";
import { BARRED, DISCONNECT, ENTER, HELLO, LEAVE, LINGER, ORDERS, PART, RENEW } from "./scripts/presence-scripts.ts";

export type ScriptName =
  | "append"
  | "mark"
  | "read"
  | "survey"
  | "hello"
  | "enter"
  | "leave"
  | "linger"
  | "orders"
  | "renew"
  | "barred"
  | "disconnect"
  | "part";
const SCRIPTS: Readonly<Record<ScriptName, string>> = {
  append: APPEND,
  mark: MARK,
  read: READ,
  survey: SURVEY,
  hello: HELLO,
  enter: ENTER,
  leave: LEAVE,
  linger: LINGER,
  orders: ORDERS,
  renew: RENEW,
  barred: BARRED,
  disconnect: DISCONNECT,
  part: PART,
};

/** Milliseconds between two attempts to have the server answer. */
const PROBE = 500;

/** A command that was sent and not answered. */
interface Pending {
  readonly deadline: number;
  readonly isAppend: boolean;
  reject(error: unknown): void;
}

/** Who is told whether commands can be given. */
export interface CommandsHome {
  commands(isThere: boolean): void;
  failed(error: unknown): void;
  /** The arguments of the script `hello`; appends are counted under the name `next` from now on. */
  hello(next: string, before: string): readonly string[];
}

/**
 * What goes through the caller's client. A command is given to the library only while that sends it at once, and is over, for who asked, when the
 * connection is lost or the time is up: whatever the library does with it afterwards, the name that its appends are counted under is not valid
 * any more once commands are given again.
 */
export class Commands {
  /** What appends are counted under, new at every arrival, and how many there were. */
  session = "";
  appends = 0;

  readonly #client: Wrapped;
  readonly #base: string;
  readonly #timeout: number;
  readonly #home: CommandsHome;
  readonly #hashes = new Map<ScriptName, string>();
  readonly #pending = new Set<Pending>();
  readonly #unwatch: () => void;
  /** Counts up whenever commands go away or come, so that what was begun before is not mistaken. */
  #turn = 0;
  #isHere = false;
  #isOver = false;
  #cancelProbe: (() => void) | undefined;
  #cancelSweep: (() => void) | undefined;

  constructor(client: Wrapped, base: string, timeout: number, home: CommandsHome) {
    this.#client = client;
    this.#base = base;
    this.#timeout = timeout;
    this.#home = home;
    this.#unwatch = client.watch({
      ready: () => this.#ready(),
      lost: () => this.#away(undefined),
      failed: (error) => home.failed(error),
    });
    this.#probe(0);
  }

  /** Runs a script. Rejects with `engine-down` what had no effect, and an append that may have had one with `publish-outcome-unknown`. */
  run(name: ScriptName, args: readonly string[], isAppend = false): Promise<unknown> {
    return this.give(["EVALSHA", this.#hashes.get(name) ?? "", "1", this.#base, ...args], isAppend);
  }

  give(command: readonly string[], isAppend = false): Promise<unknown> {
    if (!this.#isHere) return Promise.reject(down());
    if (!this.#client.isReady) {
      this.#away(undefined);
      return Promise.reject(down());
    }
    return new Promise((resolve, reject) => {
      const pending: Pending = { deadline: now() + this.#timeout, isAppend, reject };
      this.#pending.add(pending);
      this.#cancelSweep ??= after(this.#timeout, () => this.#sweep(), true);
      this.#send(command).then(
        (reply) => {
          this.#pending.delete(pending);
          resolve(reply);
        },
        (error: unknown) => this.#refused(pending, error),
      );
    });
  }

  close(): void {
    this.#isOver = true;
    this.#isHere = false;
    this.#turn++;
    this.#unwatch();
    this.#cancelProbe?.();
    this.#cancelSweep?.();
    this.#rejectAll(undefined);
  }

  async #send(command: readonly string[]): Promise<unknown> {
    return await this.#client.send(command);
  }

  #refused(pending: Pending, error: unknown): void {
    if (!this.#pending.delete(pending)) return;
    if (isReply(error)) {
      const isDown = hadNoEffect(error) || !pending.isAppend;
      pending.reject(isDown ? down(error) : unknown(error));
      if (isScriptError(error)) this.#home.failed(error);
      if (meansAway(error)) this.suspend();
      return;
    }
    pending.reject(pending.isAppend ? unknown(error) : down(error));
    this.#away(error);
  }

  /** Rejects what took too long, and all that waits behind it. */
  #sweep(): void {
    this.#cancelSweep = undefined;
    const [oldest] = this.#pending;
    if (!oldest) return;
    const left = oldest.deadline - now();
    if (left <= 0) this.#away(new Error(`Redis did not answer within ${this.#timeout} ms.`));
    else this.#cancelSweep = after(left, () => this.#sweep(), true);
  }

  #rejectAll(cause: unknown): void {
    const all = [...this.#pending];
    this.#pending.clear();
    for (const { isAppend, reject } of all) reject(isAppend ? unknown(cause) : down(cause));
  }

  /** The connection was lost, or counts as lost. */
  #away(cause: unknown): void {
    if (this.#isOver) return;
    this.#rejectAll(cause);
    this.suspend();
  }

  /** Gives no more commands until the server is prepared again. What is under way is answered still. */
  suspend(): void {
    if (this.#isOver || !this.#isHere) return;
    this.#isHere = false;
    this.#turn++;
    this.#home.commands(false);
    this.#probe(0);
  }

  /** The library has connected, perhaps anew: a probe that went through the connection before need not be answered. */
  #ready(): void {
    if (this.#isHere) this.#away(undefined);
    else {
      this.#turn++;
      this.#probe(0);
    }
  }

  #probe(delay: number): void {
    this.#cancelProbe?.();
    this.#cancelProbe = undefined;
    if (this.#isOver) return;
    this.#cancelProbe = after(delay, () => void this.#arrive(), true);
  }

  /** Asks for an answer, and prepares the server. What is not answered is waited for, unless the library connects anew. */
  async #arrive(): Promise<void> {
    if (!this.#client.isReady) return this.#probe(PROBE);
    const turn = this.#turn;
    try {
      await this.#send(["PING"]);
      if (turn !== this.#turn) return;
      const names = Object.keys(SCRIPTS) as ScriptName[];
      const hashes = await Promise.all(names.map((name) => this.#send(["SCRIPT", "LOAD", SCRIPTS[name]])));
      if (turn !== this.#turn) return;
      for (const [index, name] of names.entries()) this.#hashes.set(name, String(hashes[index]));
      const next = randomName(16);
      const args = this.#home.hello(next, this.session);
      await this.#send(["EVALSHA", this.#hashes.get("hello") ?? "", "1", this.#base, ...args]);
      if (turn !== this.#turn || !this.#client.isReady) return this.#probe(PROBE);
      this.session = next;
      this.appends = 0;
      this.#turn++;
      this.#isHere = true;
      this.#home.commands(true);
    } catch (error) {
      if (turn !== this.#turn) return;
      this.#home.failed(error);
      this.#probe(PROBE);
    }
  }
}
