// A log in this process that acts as one in another place: answers come in a later turn, messages of the feed can vanish, and the log can be
// away. With a defect, its sessions break the contract in one way.
import type {
  AppendResult,
  Engine,
  EngineListener,
  EngineSession,
  Log,
  PeerCommand,
  Presence,
  PresenceStore,
} from "../../../src/engine.ts";
import { type MemoryEngineOptions, memoryEngine } from "../../../src/index.ts";
import type { Faults, Namespace } from "../../../src/testing/index.ts";
import { type Defect, FaultySession } from "./faulty-engines.ts";

type Connections = readonly { readonly session: FaultySession; readonly presence: Presence }[];

interface AsynchronousLogOptions {
  readonly defect?: Defect;
  /** Whether sessions report vanished events with `onMissed`, so that they are read, instead of with a late `onAppended`. @default false */
  readonly reportsAsMissed?: boolean;
}

export class AsynchronousLog implements Namespace {
  readonly defect: Defect | undefined;
  readonly reportsAsMissed: boolean;
  readonly sessions: FaultySession[] = [];
  isAway = false;
  losesReply = false;
  readonly firstEpoch: string;
  readonly #options: MemoryEngineOptions;
  #connections: Connections = [];
  readonly #barred = new Set<string>();
  readonly #lingering = new Set<string>();
  #store: EngineSession;

  constructor(options: MemoryEngineOptions, { defect, reportsAsMissed = false }: AsynchronousLogOptions = {}) {
    this.defect = defect;
    this.reportsAsMissed = reportsAsMissed;
    this.#options = defect === "retains everything" ? { ...options, retention: {} } : options;
    this.#store = this.#openStore();
    this.firstEpoch = this.log.epoch;
  }

  get log(): Log {
    return this.#store.log;
  }

  /** Opens an empty log. */
  #openStore(): EngineSession {
    const listener: EngineListener = {
      get position() {
        return Infinity;
      },
      onAppended: (entry) => {
        for (const session of this.sessions) session.receive(entry);
      },
      onOverrun: () => undefined,
    };
    const { retention, ...rest } = this.#options;
    const options =
      this.defect === "retains one event less" && retention?.events
        ? { ...rest, retention: { ...retention, events: retention.events - 1 } }
        : this.#options;
    return memoryEngine(options).open(listener);
  }

  async append(keys: readonly string[], text: string, idempotencyKey: string | undefined): Promise<AppendResult> {
    return this.#store.append(keys, text, idempotencyKey);
  }

  engine(): Engine {
    return {
      open: (listener) => {
        const session = new FaultySession(this, listener, this.sessions.length);
        this.sessions.push(session);
        return session;
      },
    };
  }

  readonly faults: Faults = {
    cutFeed: (index) => this.sessions[index]?.cut(),
    swallowFeed: (index) => {
      const session = this.sessions[index];
      if (session) session.swallows = true;
      return () => {
        if (session) session.swallows = false;
      };
    },
    loseReply: () => {
      this.losesReply = true;
    },
    goAway: () => {
      this.isAway = true;
    },
    comeBack: () => {
      this.isAway = false;
      for (const session of this.sessions) session.onStoreBack();
    },
    beginAnew: () => {
      this.#store = this.#openStore();
    },
  };

  /** Returns the connections of a client id that one session knows of. */
  #connectionsOf(clientId: string, session: FaultySession): Connections {
    const isIsolated = this.defect === "keeps its clients to itself";
    return this.#connections.filter(
      (each) => each.presence.clientId === clientId && (!isIsolated || each.session === session),
    );
  }

  /** Whether a session accepts events for a client id. */
  isKnownClient(clientId: string, session: FaultySession): boolean {
    if (this.defect === "accepts every client id") return true;
    return this.#lingering.has(clientId) || this.#connectionsOf(clientId, session).length > 0;
  }

  /** Returns the presence store of one session. */
  presenceOf(session: FaultySession): PresenceStore {
    const commandOthers = (command: PeerCommand): void => {
      if (this.defect === "keeps its clients to itself") return;
      for (const other of this.sessions) if (other !== session && !other.isClosed) other.sendCommand(command);
    };
    return {
      enter: async (presence, rule) => {
        const { clientId, subject } = presence;
        if (this.#barred.has(clientId)) return "barred";
        const isTaken = this.#connectionsOf(clientId, session).some((each) => each.presence.subject === subject);
        if (isTaken && rule === "reject") return "taken";
        if (rule === "replace") commandOthers({ type: "replace", clientId, subject, barFor: 0 });
        this.#connections = [...this.#connections, { session, presence }];
        return "entered";
      },
      leave: ({ clientId }, lingerMs) => {
        const left = this.#connectionsOf(clientId, session).find((each) => each.session === session);
        this.#connections = this.#connections.filter((each) => each !== left);
        if (lingerMs > 0) this.#lingering.add(clientId);
      },
      isBarred: async (clientId) => this.#barred.has(clientId),
      disconnect: async (clientId, barMs) => {
        if (barMs > 0) this.#barred.add(clientId);
        const others = this.#connectionsOf(clientId, session).filter((each) => each.session !== session).length;
        commandOthers({ type: "disconnect", clientId, subject: undefined, barFor: barMs });
        return others;
      },
    };
  }

  onSessionClosed(): void {
    if (this.defect === "closes with the first process") for (const session of this.sessions) session.stop();
    if (this.defect === "loses its log with its last process" && this.sessions.every((session) => session.isClosed))
      this.#store = this.#openStore();
  }

  close(): void {
    for (const session of this.sessions) session.stop();
    this.#store.close();
  }
}
