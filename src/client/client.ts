// The client: what blocks mean, who receives what, where the stream continues, and which channels it has. See README.md.
import { changeChannels } from "./change-channels.ts";
import type { ConnectError } from "./connect-error.ts";
import { type ControlData, compareIds } from "./control.ts";
import type {
  Block,
  ClientItem,
  ClientState,
  EndEvent,
  EventMap,
  GapEvent,
  Handled,
  HandledType,
  SnapshotEvent,
  StreamEvents,
} from "./events.ts";
import { allowed, type ConnectOptions, listOf } from "./options.ts";
import { type CreateSource, type Source, watchPage } from "./source.ts";
import { type Checked, checkData, parseData } from "./values.ts";

/** A stream of events, which comes back by itself. */
export interface EventClient<Events = EventMap> extends AsyncIterable<ClientItem<Events>> {
  /** The state of the stream: `connecting`, `open`, `waiting` or `closed`. */
  readonly state: ClientState;
  /** The id after which the stream continues; empty if it has none yet. */
  readonly lastEventId: string;
  /** The channels that the stream reads; before it has opened, those that it asks for. */
  readonly channels: readonly string[];
  /** The client id that the server has sent, or the requested one. */
  readonly clientId: string | undefined;
  /**
   * Calls `handler` with each event of a type, in order. A handler that throws does not stop the stream: its error is thrown as an uncaught one.
   * Returns a function that ends it.
   */
  on<Type extends HandledType<Events>>(type: Type, handler: (event: Handled<Events, Type>) => void): () => void;
  /** The same for the next event only. */
  once<Type extends HandledType<Events>>(type: Type, handler: (event: Handled<Events, Type>) => void): () => void;
  /**
   * Adds channels. Resolves when the server has added them: what is published from then on arrives, or is in a gap. `position` is that of the
   * newest event then, if the server tells it.
   *
   * @throws {@link ConnectError} with the server's code, such as `forbidden`; `closed` if the client is closed before.
   */
  subscribe(channels: string | readonly string[]): Promise<{ readonly position?: string }>;
  /** Removes channels. Resolves when the server has removed them; what was published before still arrives. Throws as `subscribe()` does. */
  unsubscribe(channels: string | readonly string[]): Promise<void>;
  /** Iterates over events, gaps, snapshots and ends, from now on. A slow iteration slows the stream down. `break` closes the client. */
  [Symbol.asyncIterator](): AsyncIterableIterator<ClientItem<Events>, undefined>;
  /** Ends the stream for good. */
  close(): void;
}

type AnyItem = ClientItem<Record<string, unknown>>;
type AnyHandler = (event: never) => void;

const STREAM_EVENTS: readonly string[] = ["gap", "snapshot", "end", "state", "error"] satisfies (keyof StreamEvents)[];
/** Types that do not show that somebody is there to receive events. */
const LIFECYCLE: readonly string[] = STREAM_EVENTS.slice(2);

/** Creates a client. It starts in a microtask, so that handlers that are added at once receive everything. */
export function createClient(
  url: URL,
  options: ConnectOptions<Record<string, unknown>>,
  createSource: CreateSource,
): EventClient<Record<string, unknown>> {
  const wantedFirst = listOf(options.channels);
  const storageKey = `fanwire ${url} ${wantedFirst} ${options.clientId}`;
  const handlers = new Set<readonly [type: string, handler: AnyHandler]>();
  /** Items that iterators have not taken yet: one at most for each. */
  const slots = new Set<{ item?: AnyItem | undefined }>();
  /** Why the client has ended, if that was an error. */
  let failure: unknown;
  /** Called when the client is ready, closed, or has somebody to receive events. */
  const waiting: (() => void)[] = [];
  /** The position up to which events are repeats; empty if the next ones cannot be compared. */
  let floor = "";
  /** For each channel: up to where gaps of it were reported. */
  const gaps = new Map<string, string>();
  let isWarned = false;
  /** Whether the stream is fanwire's: its ids are positions, and it has heartbeats. */
  let isFanwire = false;
  let heartbeat = 0;
  /** Whether the server sends snapshots. */
  let hasSnapshots = false;
  /**
   * Channels that the page has joined or left since the last request. A report of the stream about them may be older, if the page joins and leaves
   * a channel quickly or is slow, so it does not count until the next request has them.
   */
  const decided = new Map<string, boolean>();
  /** Channels that were added, and whose snapshot is not complete. */
  const unjoined = new Set<string>();

  const client = {
    url,
    options,
    state: "connecting" as ClientState,
    lastEventId: options.lastEventId ?? allowed(() => options.storage?.getItem(storageKey)) ?? "",
    channels: wantedFirst ?? [],
    clientId: options.clientId,
    /** The channels of the next request. */
    wanted: wantedFirst,
    /** The secret of the open stream, with which its channels are changed. */
    secret: undefined as string | undefined,
    /** Whether the open stream has said which channels it has, or will not say it. */
    isReady: false,
    source: undefined as unknown as Source,
    on(type: string, handler: AnyHandler): () => void {
      const entry = [type, handler] as const;
      handlers.add(entry);
      notify();
      return () => void handlers.delete(entry);
    },
    once(type: string, handler: AnyHandler): () => void {
      const off = client.on(type, (event) => {
        off();
        handler(event);
      });
      return off;
    },
    [Symbol.asyncIterator](): AsyncIterableIterator<AnyItem, undefined> {
      const slot: { item?: AnyItem | undefined } = {};
      slots.add(slot);
      notify();
      return iterate(slot);
    },
    subscribe(channels: string | readonly string[]): Promise<{ readonly position?: string }> {
      return changeChannels(client, "subscribe", channels);
    },
    async unsubscribe(channels: string | readonly string[]): Promise<void> {
      await changeChannels(client, "unsubscribe", channels);
    },
    close(error?: unknown): void {
      if (client.state === "closed") return;
      failure = error;
      client.setState("closed", undefined, error);
      client.source.close();
      unwatch();
    },
    get resumeId(): string {
      // A snapshot of joined channels that broke off does not come again. A new stream has the state of all channels.
      return unjoined.size > 0 ? "" : client.lastEventId;
    },
    get silence(): number {
      const { silence } = options;
      // A heartbeat may be a sixteenth later.
      return silence ?? (isFanwire ? (heartbeat ? heartbeat * 3.2 : 30_000) : Infinity);
    },
    onOpen(headers: Headers): void {
      isFanwire ||= headers.has("fanwire-client-id");
    },
    setState(state: ClientState, retryIn?: number, error?: unknown): void {
      if (client.state === "closed") return;
      client.state = state;
      client.isReady = state === "open" && !isFanwire;
      client.secret = undefined;
      call("state", { type: "state", state, retryIn, error });
      notify();
    },
    async finish(error?: ConnectError): Promise<void> {
      if (client.state === "closed") return;
      if (!error) await give({ type: "end", reason: "no-content", reconnect: false, detail: undefined });
      else report(error);
      client.close(error);
    },
    async receive(blocks: readonly Block[]): Promise<void> {
      for (const block of blocks) {
        await client.until(isHandled);
        await take(block);
      }
    },
    /** Waits until something holds, or the client is closed. */
    async until(holds: () => boolean): Promise<void> {
      while (!holds() && client.state !== "closed") await new Promise<void>((resolve) => waiting.push(resolve));
    },
    decide(channels: readonly string[], isAdded: boolean, isOpen: boolean): void {
      for (const channel of channels) {
        decided.set(channel, isAdded);
        if (!isOpen && isAdded && hasSnapshots) unjoined.add(channel);
      }
      setChannels(client.channels);
      // The open stream does not have them.
      if (!isOpen) client.isReady = false;
    },
  };

  async function* iterate(slot: { item?: AnyItem | undefined }): AsyncGenerator<AnyItem, undefined> {
    try {
      for (;;) {
        await client.until(() => slot.item !== undefined);
        const { item } = slot;
        if (!item) break;
        slot.item = undefined;
        notify();
        yield item;
      }
    } finally {
      client.close();
    }
    if (failure) throw failure;
    return undefined;
  }

  /** The stream reads these channels, but for what the page has decided since. */
  function setChannels(channels: readonly string[]): void {
    const all = new Set(channels);
    for (const [channel, isAdded] of decided) all[isAdded ? "add" : "delete"](channel);
    client.channels = [...all];
    if (client.wanted || decided.size > 0) client.wanted = client.channels;
  }

  /** Whether anybody iterates, or handles a type: client one, or any that shows that somebody is there to receive events. */
  function isHandled(wanted?: string): boolean {
    const isOne = ([type]: readonly [string, ...unknown[]]): boolean =>
      wanted === undefined ? !LIFECYCLE.includes(type) : type === wanted;
    return slots.size > 0 || [...handlers].some(isOne);
  }

  /** Passes a block to its handlers and iterators, and then stores its id. */
  async function take({ type, data, id }: Block): Promise<void> {
    if (client.state === "closed") return;
    if (data !== undefined && type.startsWith("fanwire-")) {
      await control(type.slice(8), data, id);
    } else if (data !== undefined) {
      // On one connection nothing comes twice. But servers that share a log may differ, and so may tabs that share a stream.
      if (id !== undefined && compareIds(floor, id) >= 0) return;
      // The server has left out `fanwire-ready`.
      client.isReady = true;
      await publish(type, data, id);
    }
    store(id);
  }

  async function publish(event: string, data: string, id: string | undefined): Promise<void> {
    if (!isHandled(event)) return;
    const schema = options.schemas?.[event];
    const { value, error }: Checked = schema ? await checkData(event, data, schema) : { value: parseData(data) };
    if (error) report(error);
    else await give({ type: "event", event, id, data, value }, STREAM_EVENTS.includes(event) ? "" : event);
  }

  async function control(type: string, text: string, id: string | undefined): Promise<void> {
    const data = parseData(text) as ControlData;
    const { channels = [], added = [], removed = [], reason } = data;
    if (type === "ready") {
      if (id !== undefined) unjoined.clear();
      isFanwire = client.isReady = true;
      floor ||= client.lastEventId;
      client.clientId = data.clientId;
      // Its request had what was decided.
      decided.clear();
      client.channels = channels;
      client.secret = data.secret;
      heartbeat = data.heartbeat ?? 0;
      notify();
    } else if (type === "channels") {
      for (const channel of removed) {
        unjoined.delete(channel);
        // With a reason it is the application that removes them, whatever the page has decided.
        if (reason) decided.delete(channel);
      }
      if (hasSnapshots) for (const channel of added) unjoined.add(channel);
      setChannels(channels);
    } else if (type === "gap" || type === "snapshot" || type === "end") {
      const item = { ...data, type, id } as GapEvent | SnapshotEvent | EndEvent;
      if (item.type === "gap" && isKnown(item)) return;
      if (item.type === "snapshot") {
        hasSnapshots = true;
        if (reason === "new") unjoined.clear();
        for (const channel of channels) unjoined.delete(channel);
      }
      await give(item);
      if (item.type === "end" && !item.reconnect) client.close();
    }
  }

  /** Whether a gap was reported before. If it is the first one, and nobody handles it, the page is warned. */
  function isKnown({ channels, after, through }: GapEvent): boolean {
    // Later ids may be smaller, also in the same epoch: a store may have lost its end.
    if (after === null) floor = "";
    if (channels.every((channel) => compareIds(gaps.get(channel) ?? "", through) >= 0)) return true;
    for (const channel of channels) gaps.set(channel, through);
    if (isWarned || isHandled("gap")) return false;
    isWarned = true;
    // biome-ignore lint/suspicious/noConsole: without a handler the page would lose events and not know it.
    console.warn(`fanwire: events are missing, and nothing handles "gap". See https://npmjs.com/package/fanwire`);
    return false;
  }

  /** Reports an error: to the console if there is no handler, because what nobody hears of would look like silence. */
  function report(error: ConnectError): void {
    call("error", error);
    // biome-ignore lint/suspicious/noConsole: see above.
    if (!isHandled("error")) console.error(error);
  }

  /** Gives an item to handlers and iterators. Resolves when all iterators have taken it. */
  async function give(item: AnyItem, type: string = item.type): Promise<void> {
    call(type, item);
    for (const slot of slots) slot.item = item;
    notify();
    for (const slot of slots) await client.until(() => slot.item === undefined);
  }

  function call(type: string, event: unknown): void {
    for (const [handled, handler] of [...handlers]) {
      if (handled !== type) continue;
      try {
        handler(event as never);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  function store(id: string | undefined): void {
    if (id === undefined || client.state === "closed" || compareIds(floor, id) > 0) return;
    client.lastEventId = id;
    if (isFanwire) floor = id;
    allowed(() => options.storage?.setItem(storageKey, id));
  }

  function notify(): void {
    for (const resolve of waiting.splice(0)) resolve();
  }

  const source = (client.source = createSource(client));
  const unwatch = watchPage(source);
  const { signal } = options;
  signal?.addEventListener("abort", () => client.close(), { once: true });
  queueMicrotask(() => {
    if (signal?.aborted) client.close();
    if (client.state !== "closed") source.start();
  });
  return client as unknown as EventClient<Record<string, unknown>>;
}
