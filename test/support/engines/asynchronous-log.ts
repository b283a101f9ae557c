import type { PeerCommand, Presence, PresenceStore } from "../../../src/engine/engine.ts";
import {
  type AppendResult,
  type Engine,
  type EngineListener,
  type EngineSession,
  type Log,
  type MemoryEngineOptions,
  memoryEngine,
} from "../../../src/index.ts";
import type { Faults, Namespace } from "../../../src/testing/index.ts";
import { type Lie, Link } from "./faulty-engines.ts";

type Connections = readonly { readonly link: Link; readonly presence: Presence }[];

/** A log in this process that plays one in another place: what is asked of it takes a turn, and what it tells may vanish. */
export class DistantLog implements Namespace {
  readonly lie: Lie | undefined;
  readonly #options: MemoryEngineOptions;
  readonly links: Link[] = [];
  isAway = false;
  losesReply = false;
  readonly firstEpoch: string;
  /** Whether a process is told that it missed something, and reads it, instead of being told of it late. */
  readonly hasItRead: boolean;
  #connections: Connections = [];
  readonly #barred = new Set<string>();
  readonly #lingering = new Set<string>();
  #session: EngineSession;

  constructor(options: MemoryEngineOptions, { lie, hasItRead = false }: { lie?: Lie; hasItRead?: boolean } = {}) {
    this.lie = lie;
    this.hasItRead = hasItRead;
    this.#options = lie === "keeps everything" ? { ...options, retention: {} } : options;
    this.#session = this.#begin();
    this.firstEpoch = this.log.epoch;
  }

  get log(): Log {
    return this.#session.log;
  }

  #begin(): EngineSession {
    const told: EngineListener = {
      get position() {
        return Infinity;
      },
      onAppended: (entry) => {
        for (const link of this.links) link.receive(entry);
      },
      onOverrun: () => undefined,
    };
    const { retention, ...rest } = this.#options;
    const kept =
      this.lie === "keeps one event less" && retention?.events
        ? { ...rest, retention: { ...retention, events: retention.events - 1 } }
        : this.#options;
    return memoryEngine(kept).open(told);
  }

  async append(keys: readonly string[], text: string, nonce: string | undefined): Promise<AppendResult> {
    return this.#session.append(keys, text, nonce);
  }

  engine(): Engine {
    return {
      open: (follower) => {
        const link = new Link(this, follower, this.links.length);
        this.links.push(link);
        return link;
      },
    };
  }

  readonly faults: Faults = {
    cutFeed: (index) => this.links[index]?.cut(),
    swallowFeed: (index) => {
      const link = this.links[index];
      if (link) link.swallows = true;
      return () => {
        if (link) link.swallows = false;
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
      for (const link of this.links) link.returned();
    },
    beginAnew: () => {
      this.#session = this.#begin();
    },
  };

  /** The connections of an id that a process knows of. */
  #connectionsOf(clientId: string, link: Link): Connections {
    const isApart = this.lie === "keeps its clients to itself";
    return this.#connections.filter((each) => each.presence.clientId === clientId && (!isApart || each.link === link));
  }

  /** Whether a process may send to an id. */
  knows(clientId: string, link: Link): boolean {
    if (this.lie === "takes anybody for a client") return true;
    return this.#lingering.has(clientId) || this.#connectionsOf(clientId, link).length > 0;
  }

  /** What a process knows of the clients of all. */
  presencesOf(link: Link): PresenceStore {
    const tellOthers = (order: PeerCommand): void => {
      if (this.lie === "keeps its clients to itself") return;
      for (const other of this.links) if (other !== link && !other.isClosed) other.obey(order);
    };
    return {
      enter: async (presence, rule) => {
        const { clientId, subject } = presence;
        if (this.#barred.has(clientId)) return "barred";
        const taken = this.#connectionsOf(clientId, link).some((each) => each.presence.subject === subject);
        if (taken && rule === "reject") return "taken";
        if (rule === "replace") tellOthers({ type: "replace", clientId, subject, barFor: 0 });
        this.#connections = [...this.#connections, { link, presence }];
        return "entered";
      },
      leave: ({ clientId }, linger) => {
        const gone = this.#connectionsOf(clientId, link).find((each) => each.link === link);
        this.#connections = this.#connections.filter((each) => each !== gone);
        if (linger > 0) this.#lingering.add(clientId);
      },
      isBarred: async (clientId) => this.#barred.has(clientId),
      disconnect: async (clientId, barFor) => {
        if (barFor > 0) this.#barred.add(clientId);
        const others = this.#connectionsOf(clientId, link).filter((each) => each.link !== link).length;
        tellOthers({ type: "disconnect", clientId, subject: undefined, barFor });
        return others;
      },
    };
  }

  /** One of the processes left. */
  left(): void {
    if (this.lie === "leaves with the first who does") for (const link of this.links) link.stop();
    if (this.lie === "loses its log with its last process" && this.links.every((link) => link.isClosed))
      this.#session = this.#begin();
  }

  close(): void {
    for (const link of this.links) link.stop();
    this.#session.close();
  }
}
