// One stream for all tabs that ask for the same. A Web Lock says which tab holds it; it passes every block on over a BroadcastChannel. See
// README.md for what the tabs say to each other.

import { compareIds } from "./control.ts";
import type { Block } from "./events.ts";
import type { Source, SourceHost } from "./source.ts";
import { createStream } from "./stream.ts";
import { type Content, type LockOptions, locks, type Message, type Said } from "./tab-messages.ts";

/** Blocks that a tab holds while its page is slow, and that a leader holds for tabs that come. */
const MAX_HELD = 1_000;
/** Characters of the latter, about. */
const MAX_RECENT = 1_000_000;
/** Milliseconds that a new leader waits for the positions of the others. */
const ROUND = 60;

/**
 * The tab that has the lock leads. `joining`: waits for the leader's answer. `following`: takes the leader's blocks. `alone`: has a stream of
 * its own, until that has reached the leader's. `gone`: has let go of everything, and may come back.
 */
type Mode = "joining" | "following" | "alone" | "leading" | "gone";

export class SharedSource implements Source {
  readonly isShared = true;
  readonly #host: SourceHost;
  readonly #subject: unknown;
  readonly #id = crypto.randomUUID();
  /** Of the lock, and of the channel between the tabs. */
  #name = "";
  #mode: Mode = "gone";
  #isClosed = false;
  #channel: BroadcastChannel | undefined;
  #stream: Source | undefined;
  /** Lets go of the lock, or of the place in its queue. */
  #leaveLock: () => void = () => undefined;
  #watchdog: ReturnType<typeof setTimeout> | undefined;
  /** The position of the shared stream: everything up to there was given to the page, or is on its way. */
  #position = "";
  /** Blocks on their way to the page, in order. */
  #tail: Promise<unknown> = Promise.resolve();
  #held = 0;
  /** The last `fanwire-ready` of the shared stream. */
  #ready: Block | undefined;
  /** The latest events of the shared stream, all that there are after `#recentFrom`. */
  #recent: Block[] = [];
  #recentFrom = "";
  #recentLength = 0;
  /** Whether the server is not fanwire's. */
  #isPlain = false;
  /** Whether a tab that comes needs a snapshot, which only a stream of its own has. */
  #hasState = false;
  /** Whether a tab has asked before there was an answer. */
  #isAsked = false;
  /** Positions of the other tabs, while a new leader asks. */
  #others: string[] = [];
  /** Blocks of the leader that arrive while this tab is alone. */
  #ahead: Said<"blocks">[] = [];
  #aheadFrom = "";

  constructor(host: SourceHost, subject: unknown) {
    this.#host = host;
    this.#subject = subject;
  }

  start(): void {
    if (this.#isClosed || this.#mode !== "gone") return;
    const { url, options, wanted } = this.#host;
    const { clientId, method } = options;
    this.#name = `fanwire ${JSON.stringify([url.href, wanted && [...wanted].sort(), clientId, method, this.#subject])}`;
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.onmessage = ({ data }: MessageEvent<Message>) => {
      if ((data.to ?? this.#id) === this.#id) this.#hear(data);
    };
    this.#position = this.#host.resumeId;
    this.#ready = undefined;
    this.#forget("");
    this.#join();
    this.#lock({ ifAvailable: true });
  }

  restart(isMoved?: boolean): void {
    if (!isMoved) {
      this.#stream?.restart();
    } else {
      // To the tabs that ask for the same as this one does from now on.
      this.#leave();
      this.start();
    }
  }

  wake(): void {
    this.#stream?.wake();
  }

  suspend(): void {
    this.#leave();
  }

  resume(): void {
    if (this.#mode === "gone") this.start();
    else this.wake();
  }

  close(): void {
    this.#isClosed = true;
    this.#leave();
  }

  #leave(): void {
    this.#mode = "gone";
    clearTimeout(this.#watchdog);
    this.#closeStream();
    this.#channel?.close();
    this.#channel = undefined;
    this.#leaveLock();
  }

  #closeStream(): void {
    this.#stream?.close();
    this.#stream = undefined;
  }

  #say(content: Content): void {
    this.#channel?.postMessage({ ...content, from: this.#id });
  }

  /** Waits for the lock, and leads while it has it. */
  #lock(options: Pick<LockOptions, "ifAvailable" | "steal">): void {
    const abort = new AbortController();
    let hasLeft = false;
    let release = (): void => abort.abort();
    this.#leaveLock = () => {
      hasLeft = true;
      release();
    };
    const work = (lock: unknown): Promise<void> | undefined => {
      if (hasLeft) return undefined;
      if (!lock) {
        this.#lock({});
        return undefined;
      }
      void this.#lead(ifAvailable);
      return new Promise((resolve) => {
        release = resolve;
      });
    };
    const { ifAvailable, steal } = options;
    locks()
      ?.request(this.#name, ifAvailable || steal ? options : { signal: abort.signal }, work)
      .catch(({ name }) => {
        if (hasLeft) return;
        if (name === "AbortError") {
          // Another tab has stolen it, because this one was frozen.
          this.#closeStream();
          this.#join();
          this.#lock({});
        } else {
          // Locks are denied, as in a sandbox: a stream for this tab alone.
          void this.#lead(true);
        }
      });
  }

  /** Opens the shared stream. Others may be behind this tab, so it begins at the oldest position of all. */
  async #lead(isFirst?: boolean): Promise<void> {
    this.#closeStream();
    clearTimeout(this.#watchdog);
    this.#mode = "leading";
    this.#others = [];
    this.#say({ say: "lead" });
    await this.#tail;
    if (!isFirst) await new Promise((resolve) => setTimeout(resolve, ROUND));
    if (this.#mode !== "leading" || this.#stream) return;
    let oldest = this.#host.resumeId;
    for (const id of this.#others) if (compareIds(id, oldest) < 0) oldest = id;
    this.#position = oldest;
    this.#open({
      receive: async (blocks) => {
        this.#say({ say: "blocks", after: this.#position, blocks });
        this.#observe(blocks);
        // Not at a heartbeat, which says nothing about the server.
        if (blocks.length > 0) {
          this.#isPlain = !this.#ready;
          if (this.#isAsked) this.#say({ say: "lead" });
          this.#isAsked = false;
        }
        await this.#host.receive(blocks);
      },
      setState: (state, retryIn, error) => {
        this.#say({ say: "state", state, retryIn });
        this.#host.setState(state, retryIn, error);
      },
    });
  }

  /** Opens a stream, of all tabs or of this one. */
  #open(own: Pick<SourceHost, "receive" | "setState">): void {
    const host = this.#host;
    const isLeading = this.#mode === "leading";
    // The page may be behind the stream.
    const position = (): string => (isLeading ? this.#position : host.resumeId);
    const changes = {
      get resumeId() {
        return position();
      },
      ...own,
    };
    // Everything else is the page's, as it is then.
    this.#stream = createStream(Object.setPrototypeOf(changes, host));
    this.#stream.start();
  }

  /** Asks the leader where to go on, when the page has everything that is on its way. */
  #join(): void {
    this.#mode = "joining";
    this.#watch();
    void this.#tail.then(() => {
      if (this.#mode === "joining") this.#say({ say: "hello", id: this.#host.resumeId });
    });
  }

  /** A leader that says nothing for long is frozen. Not all take its place at once. */
  #watch(more = 0): void {
    clearTimeout(this.#watchdog);
    const steal = (): void => {
      this.#leaveLock();
      this.#lock({ steal: true });
    };
    const ms = more + Math.min(this.#host.silence, 30_000) * (2 + Math.random());
    this.#watchdog = setTimeout(steal, Math.min(ms, 2 ** 31 - 1));
  }

  #hear(message: Message): void {
    const isLeading = this.#mode === "leading";
    if (message.say === "hello") {
      if (isLeading) this.#answer(message);
      return;
    }
    if (message.say === "at") {
      this.#others.push(message.id);
      return;
    }
    if (isLeading) return;
    if (this.#mode !== "alone") this.#watch(message.say === "state" ? message.retryIn : 0);
    switch (message.say) {
      case "lead":
        if (this.#mode === "following") this.#say({ say: "at", id: this.#position });
        else if (this.#mode === "joining") this.#join();
        break;
      case "state":
        if (this.#mode === "following") this.#pass(() => this.#host.setState(message.state, message.retryIn));
        break;
      case "blocks":
        if (this.#mode === "following") this.#follow(message);
        else if (this.#mode === "alone") this.#keep(message);
        break;
      case "follow":
        if (this.#mode !== "joining") break;
        this.#mode = "following";
        this.#pass(() => this.#host.setState(message.state));
        this.#position = message.after;
        this.#forget(message.after);
        this.#follow(message);
        break;
      case "alone":
        if (this.#mode === "joining") this.#goAlone(message.after);
        break;
    }
  }

  /** Tells a tab where to go on. */
  #answer({ from: to, id }: Said<"hello">): void {
    const after = this.#position;
    const ready = this.#ready;
    if (!ready) {
      // A server that is not fanwire's has no positions, so each tab has a stream of its own.
      if (this.#isPlain) this.#say({ say: "alone", to, after: "" });
      else this.#isAsked = true;
      return;
    }
    const { state, url } = this.#host;
    const isNew = id === "" && !this.#hasState && after !== "" && !/[?&](from|last)=/.test(url.search);
    const isThere = id === after || compareIds(id, after) > 0;
    if (isNew) this.#say({ say: "follow", to, after, state, blocks: [{ ...ready, id: after }] });
    else if (isThere || compareIds(id, this.#recentFrom) >= 0) {
      const missing = isThere ? [] : this.#recent.filter((block) => compareIds(block.id ?? "", id) > 0);
      this.#say({ say: "follow", to, after: id, state, blocks: [{ ...ready, id: undefined }, ...missing] });
    } else this.#say({ say: "alone", to, after });
  }

  /** Takes blocks of the leader, if they follow what this tab has. */
  #follow({ after, blocks }: Pick<Said<"blocks">, "after" | "blocks">): void {
    const isComplete = after === this.#position || compareIds(this.#position, after) > 0;
    // A page that is this slow continues later, where it is then.
    const isSlow = this.#held > 0 && this.#held + blocks.length > MAX_HELD;
    if (!isComplete || isSlow) {
      this.#join();
      return;
    }
    this.#observe(blocks);
    this.#held += blocks.length;
    this.#pass(async () => {
      await this.#host.receive(blocks);
      this.#held -= blocks.length;
    });
  }

  #pass(work: () => unknown): void {
    this.#tail = this.#tail.then(work);
  }

  /** Opens a stream of this tab, because the leader no longer has what it needs. */
  #goAlone(after: string): void {
    this.#mode = "alone";
    clearTimeout(this.#watchdog);
    this.#ahead = [];
    this.#aheadFrom = after;
    this.#open({
      receive: async (blocks) => {
        await this.#host.receive(blocks);
        if (this.#mode === "alone" && compareIds(this.#host.resumeId, this.#aheadFrom) >= 0) this.#meet();
      },
      setState: (state, retryIn, error) => this.#host.setState(state, retryIn, error),
    });
  }

  /** Keeps blocks of the leader for later. What has no id came on the own stream, too, and a gap has no place between others. */
  #keep(message: Said<"blocks">): void {
    if (this.#aheadFrom === "") return;
    const blocks = message.blocks.filter(({ id }) => id !== undefined);
    const isApart = message.blocks.some(({ type }) => type === "fanwire-gap" || type === "fanwire-snapshot");
    if (isApart || this.#ahead.length > MAX_HELD) {
      this.#ahead = [];
      this.#aheadFrom = blocks.at(-1)?.id ?? message.after;
    } else if (blocks.length > 0) {
      this.#ahead.push({ ...message, blocks });
    }
  }

  /** The own stream has reached the leader's. */
  #meet(): void {
    this.#closeStream();
    this.#mode = "following";
    this.#position = this.#host.resumeId;
    this.#watch();
    for (const message of this.#ahead.splice(0)) if (this.#mode === "following") this.#follow(message);
  }

  #forget(from: string): void {
    this.#recent = [];
    this.#recentLength = 0;
    this.#recentFrom = from;
  }

  /** Notes where the shared stream is, and what tabs that come need. */
  #observe(blocks: readonly Block[]): void {
    for (const block of blocks) {
      const { type, id } = block;
      const isControl = type.startsWith("fanwire-");
      if (type === "fanwire-ready") {
        this.#ready = block;
        this.#hasState ||= id === undefined;
      } else if (type === "fanwire-snapshot") this.#hasState = true;
      if (id === undefined || compareIds(this.#position, id) > 0) continue;
      if (isControl && type !== "fanwire-position" && id !== this.#position) {
        this.#forget(id);
      } else if (!isControl) {
        this.#recentFrom ||= this.#position;
        this.#recent.push(block);
        this.#recentLength += block.data?.length ?? 0;
        if (this.#recent.length > MAX_HELD || this.#recentLength > MAX_RECENT) this.#forget(id);
      }
      this.#position = id;
    }
  }
}
