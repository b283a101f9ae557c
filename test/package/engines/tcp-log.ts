// A log that several processes share over TCP: a server that keeps it in memory, and the client of one process, for `sharedLogEngine`.
// Messages are lines of JSON. One connection carries the calls of a process, their answers, and its feed.
import { randomUUID } from "node:crypto";
import { connect, createServer, type Socket } from "node:net";
import {
  BrokerError,
  createEpoch,
  createIdempotencyWindow,
  createLog,
  ExpiringMap,
  type IdempotencyWindow,
  type Log,
  type LogOptions,
  type MaxReplay,
  type PeerCommand,
  type Position,
  type Presence,
  readHistoryBounds,
  readLast,
  readPage,
  type SharedLog,
  type SharedLogListener,
  type SharedLogSession,
} from "fanwire/engine";

/** Milliseconds without a message after which a process counts as dead. */
const LEASE_MS = 15_000;
/** Milliseconds after which a call without an answer ends the connection. */
const CALL_TIMEOUT_MS = 3_000;
/** Bytes that may wait for a slow process before the server cuts its connection. */
const MAX_UNSENT_BYTES = 16 * 1024 * 1024;

/** Formats a message. JSON has no `Infinity`, which durations and `maxReplay` may be. */
const toLine = (message: object): string =>
  `${JSON.stringify(message, (_, value) => (value === Infinity ? Number.MAX_SAFE_INTEGER : value))}\n`;

/** Calls `onMessage` for each line. A line that cannot be read ends the connection. */
function readLines(socket: Socket, onMessage: (message: never) => void): void {
  let rest = "";
  socket.setNoDelay(true).setEncoding("utf8");
  socket.on("data", (text: string) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    try {
      for (const line of lines) onMessage(JSON.parse(line) as never);
    } catch (error) {
      socket.destroy(error as Error);
    }
  });
}

/** A process, as the server knows it. */
interface Peer {
  readonly id: string;
  socket: Socket | undefined;
  deadline: number;
  lingerMs: number;
  readonly subscribed: Set<string>;
  presences: Presence[];
}

const isSame = (a: Presence, b: Presence): boolean => a.clientId === b.clientId && a.subject === b.subject;

/** Creates the server, which `server.listen(port)` starts. `beginAnew` replaces its log by an empty one. */
export function createTcpLogServer(options: LogOptions & { readonly idempotencyWindow?: number | undefined } = {}) {
  const { idempotencyWindow, ...logOptions } = options;
  const peers = new Map<string, Peer>();
  const barred = new ExpiringMap();
  const lingering = new ExpiringMap();
  /** The newest commands, for processes that connect again. */
  const commands: { readonly from: Peer; readonly command: PeerCommand & { readonly at: number } }[] = [];
  /** Numbers registrations and commands. Begins with the time, so that it does not go back when the server restarts. */
  let count = Date.now();
  let log: Log;
  let window: IdempotencyWindow;
  const beginAnew = (): void => {
    log = createLog(createEpoch(), logOptions);
    window = createIdempotencyWindow(log.epoch, idempotencyWindow);
  };
  beginAnew();
  /** Replaces the log if it is behind a position that a process knows. */
  const proveLog = (seen: Position | null): void => {
    if (seen?.epoch === log.epoch && seen.seq > log.head) beginAnew();
  };
  const send = ({ socket }: Peer, message: object): void => {
    socket?.write(toLine(message));
    if (socket && socket.writableLength > MAX_UNSENT_BYTES) socket.destroy();
  };
  const commandOthers = (from: Peer, command: PeerCommand): void => {
    const numbered = { ...command, at: ++count };
    if (commands.push({ from, command: numbered }) > 1_000) commands.shift();
    for (const peer of peers.values()) if (peer !== from) send(peer, { command: numbered });
  };
  const remove = (peer: Peer, lingerMs: number): void => {
    peers.delete(peer.id);
    // Alive after all, a process would otherwise receive no events and not notice.
    peer.socket?.destroy();
    for (const { clientId } of peer.presences) lingering.set(clientId, lingerMs, true);
  };
  /** Removes dead processes, and returns the presences of the living ones. */
  const presencesOf = (except?: Peer): Presence[] => {
    const time = Date.now();
    for (const peer of peers.values()) if (peer.deadline <= time) remove(peer, peer.deadline + peer.lingerMs - time);
    return [...peers.values()].flatMap((peer) => (peer === except ? [] : peer.presences));
  };
  const append = (keys: string[], text: string, seen: Position | null, recipient: string | null): number => {
    const isRecipient = ({ clientId }: Presence): boolean => clientId === recipient;
    if (recipient !== null && !presencesOf().some(isRecipient) && !lingering.has(recipient))
      throw new BrokerError("unknown-client", "Event refused: no process has or had this client.");
    proveLog(seen);
    const previous = readLast(log, keys);
    const { seq } = log.append(keys, text);
    for (const peer of peers.values())
      if (keys.some((key) => key.startsWith("@") || peer.subscribed.has(key)))
        send(peer, { event: { epoch: log.epoch, seq, keys, previous, text } });
    return seq;
  };

  /** The calls of a process. Arguments that are `undefined` arrive as `null`. */
  const calls: { readonly [name: string]: (peer: Peer, ...args: never[]) => unknown } = {
    hello: () => count,
    append: (_, keys: string[], text: string, seen: Position | null, key: string | null, recipient: string | null) =>
      window.appendOnce(keys, text, key ?? undefined, () => append(keys, text, seen, recipient)),
    subscribe: ({ subscribed }, keys: string[]) => keys.forEach((key) => void subscribed.add(key)),
    unsubscribe: ({ subscribed }, keys: string[]) => keys.forEach((key) => void subscribed.delete(key)),
    requestCheckpoint(peer, token: number, keys: string[], seen: Position | null) {
      proveLog(seen);
      send(peer, { checkpoint: { epoch: log.epoch, head: log.head, token, last: readLast(log, keys) } });
    },
    read: (_, epoch: string, keys: string[], after: number, bytes: number) =>
      readPage(log, epoch === log.epoch ? keys : [], after, bytes),
    historyBounds: (_, epoch: string, keys: string[], after: number, max: MaxReplay, last: number | null) =>
      readHistoryBounds(log, epoch === log.epoch ? keys : [], after, max, last ?? undefined),
    enter(peer, presences: Presence[], rule: "allow" | "reject" | "replace", lingerMs: number) {
      peer.lingerMs = lingerMs;
      return presences.map((presence) => {
        const { clientId, subject } = presence;
        if (barred.has(clientId)) return "barred";
        if (rule === "reject" && presencesOf().some((other) => isSame(other, presence))) return "taken";
        if (rule === "replace") commandOthers(peer, { type: "replace", clientId, subject, barFor: 0 });
        peer.presences.push(presence);
        return ++count;
      });
    },
    leave(peer, presence: Presence, lingerMs: number) {
      const index = peer.presences.findIndex((other) => isSame(other, presence));
      if (index < 0) return;
      peer.presences.splice(index, 1);
      lingering.set(presence.clientId, lingerMs, true);
    },
    linger(_, ids: [clientId: string, ms: number][]) {
      for (const [clientId, ms] of ids) lingering.set(clientId, ms, true);
    },
    renew: (peer, presences: Presence[]) => void (peer.presences = presences),
    isBarred: (_, clientId: string) => barred.has(clientId),
    disconnect(peer, clientId: string, barMs: number) {
      barred.set(clientId, barMs, true);
      commandOthers(peer, { type: "disconnect", clientId, subject: undefined, barFor: barMs });
      return presencesOf(peer).filter((presence) => presence.clientId === clientId).length;
    },
    close: (peer, lingerMs: number) => remove(peer, lingerMs),
  };

  /** A process connected, for the first time or again: its feed is subscribed to nothing. */
  const welcome = (socket: Socket, id: string, lastCommand: number): Peer => {
    const peer = peers.get(id) ?? { id, socket, deadline: 0, lingerMs: 0, subscribed: new Set(), presences: [] };
    if (peer.socket !== socket) peer.socket?.destroy();
    peer.socket = socket;
    peer.subscribed.clear();
    peers.set(id, peer);
    for (const { from, command } of commands) if (from.id !== id && command.at > lastCommand) send(peer, { command });
    return peer;
  };

  const server = createServer((socket) => {
    let peer: Peer | undefined;
    socket.on("error", () => undefined);
    socket.on("close", () => {
      if (peer?.socket === socket) peer.socket = undefined;
    });
    readLines(socket, ({ id, call, args }: { id: number; call: string; args: never[] }) => {
      peer ??= welcome(socket, ...(args as unknown as [string, number]));
      peer.deadline = Date.now() + LEASE_MS;
      try {
        send(peer, { id, value: calls[call]?.(peer, ...args) });
      } catch (error) {
        const { code = "internal", message } = error as BrokerError;
        send(peer, { id, error: { code, message } });
      }
    });
  });
  return { server, beginAnew };
}

/** The log of a server, for `sharedLogEngine`. */
export const tcpLog = (port: number): SharedLog => ({ open: (listener) => openSession(port, listener) });

/** A message of the server: the answer to a call, or a part of the feed. */
interface Message {
  readonly id?: number;
  readonly value?: unknown;
  readonly error?: { readonly code: BrokerError["code"]; readonly message: string };
  readonly event?: Parameters<SharedLogListener["onEvent"]>[0];
  readonly checkpoint?: Parameters<SharedLogListener["onCheckpoint"]>[0];
  readonly command?: PeerCommand;
}

function openSession(port: number, listener: SharedLogListener): SharedLogSession {
  const process = randomUUID();
  const pending = new Map<number, { name: string; resolve(value: never): void; reject(error: unknown): void }>();
  let nextId = 0;
  /** The last number of the server that this process knows. Commands after it are sent again when the process reconnects. */
  let lastCommand = Infinity;
  let isConnected = false;
  let isClosed = false;
  let socket: Socket;

  const write = <T>(name: string, args: readonly unknown[]): Promise<T> => {
    const id = ++nextId;
    socket.write(toLine({ id, call: name, args }));
    const answer = new Promise<T>((resolve, reject) => pending.set(id, { name, resolve, reject }));
    const timeout = setTimeout(() => socket.destroy(new Error(`The server did not answer ${name}.`)), CALL_TIMEOUT_MS);
    return answer.finally(() => clearTimeout(timeout));
  };
  const call = async <T>(name: string, ...args: readonly unknown[]): Promise<T> => {
    if (!isConnected) throw new BrokerError("engine-down", "Refused: the server cannot be reached.");
    return write(name, args);
  };

  const onMessage = ({ id, value, error, event, checkpoint, command }: Message): void => {
    if (isClosed) return;
    if (event) listener.onEvent(event);
    if (checkpoint) listener.onCheckpoint(checkpoint);
    if (command) {
      lastCommand = command.at as number;
      listener.onCommand(command);
    }
    const waiting = pending.get(id ?? 0);
    pending.delete(id ?? 0);
    if (error) waiting?.reject(new BrokerError(error.code, error.message));
    else waiting?.resolve(value as never);
  };
  const onClose = (): void => {
    const wasConnected = isConnected;
    isConnected = false;
    for (const { name, reject } of pending.values()) {
      const code = name === "append" ? "publish-outcome-unknown" : "engine-down";
      reject(new BrokerError(code, "The connection to the server ended before the answer arrived."));
    }
    pending.clear();
    if (wasConnected && !isClosed) {
      listener.onCommands(false);
      listener.onFeed(false);
    }
    setTimeout(start, 100);
  };
  function start(): void {
    if (isClosed) return;
    socket = connect(port);
    socket.on("error", (error) => listener.onError(error));
    socket.on("close", onClose);
    readLines(socket, onMessage);
    const onWelcome = (count: number): void => {
      lastCommand = count;
      isConnected = true;
      listener.onCommands(true);
      listener.onFeed(true);
    };
    write<number>("hello", [process, lastCommand]).then(onWelcome, () => undefined);
  }
  start();

  return {
    lease: LEASE_MS / 3,
    append: (...args) => call("append", ...args),
    subscribe: (keys) => call("subscribe", keys),
    unsubscribe: (keys) => call("unsubscribe", keys),
    requestCheckpoint: (...args) => call("requestCheckpoint", ...args),
    read: (...args) => call("read", ...args),
    historyBounds: (...args) => call("historyBounds", ...args),
    enter: (...args) => call("enter", ...args),
    leave: (...args) => call("leave", ...args),
    linger: (ids) => call("linger", [...ids]),
    renew: (presences) => call("renew", presences),
    isBarred: (clientId) => call("isBarred", clientId),
    disconnect: (...args) => call("disconnect", ...args),
    renewFeed: () => void socket.destroy(),
    close(lingerMs) {
      isClosed = true;
      if (isConnected) socket.end(toLine({ id: 0, call: "close", args: [lingerMs] }));
      else socket.destroy();
    },
  };
}
