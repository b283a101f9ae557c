// Methods of a broker that may live in another process: they check their arguments, and pass requests on.
import { checkKnownKeys } from "../base/validate.ts";
import type { Reported } from "../delivery/delivery-report.ts";
import { DEFAULT_LIMIT, MAX_LIMIT } from "../engine/history.ts";
import { idempotencyKeyOf, inboxKey, keysOf } from "../event/channel-key.ts";
import type { EventInput } from "../event/event.ts";
import { formatPosition } from "../event/position.ts";
import type { BrokerBackend } from "../http/handler.ts";
import type { Disconnection } from "./broker-core.ts";
import type { BroadcastOptions, Broker, DisconnectOptions, SendToOptions } from "./interface.ts";

const SEND_OPTIONS = new Set(["report", "idempotencyKey", "ephemeral"]);
const BROADCAST_OPTIONS = new Set([...SEND_OPTIONS, "channels"]);
const SEND_TO_OPTIONS = new Set([...SEND_OPTIONS, "connectionId"]);
const HISTORY_OPTIONS = new Set(["channels", "after", "from", "limit", "signal"]);
const SUBSCRIBE_OPTIONS = new Set(["connectionId"]);
const UNSUBSCRIBE_OPTIONS = new Set(["connectionId", "reason"]);
const DISCONNECT_OPTIONS = new Set(["blockFor", "reason"]);

/** Reads the options of `disconnect`. @throws `TypeError`, `RangeError` */
export function disconnectionOf(options: DisconnectOptions = {}): Disconnection {
  checkKnownKeys("disconnect()", "option", DISCONNECT_OPTIONS, options);
  // A default only for `undefined`: null is not a number.
  const { blockFor = 0, reason } = options;
  return { blockFor, reason: checkReason("disconnect()", reason) };
}

/** The longest reason of an application, in UTF-16 code units. */
const MAX_REASON_LENGTH = 1_024;

function checkReason(where: string, reason: unknown): string | undefined {
  if (reason !== undefined && (typeof reason !== "string" || reason.length > MAX_REASON_LENGTH))
    throw new TypeError(`${where} refused: reason must be a string of at most ${MAX_REASON_LENGTH} characters.`);
  return reason === undefined ? undefined : reason.replace(/\p{Surrogate}/gu, "\ufffd");
}

function checkConnectionId(where: string, id: unknown): string | undefined {
  if (id !== undefined && (typeof id !== "string" || id === ""))
    throw new TypeError(`${where} refused: connectionId must be a string that is not empty.`);
  return id;
}

/** Returns `subscribe` and `unsubscribe` of a broker, which may live in another process. */
export function streamMethods({
  names,
  requestStreams,
}: Pick<BrokerBackend, "names" | "requestStreams">): Pick<Broker, "subscribe" | "unsubscribe"> {
  return {
    async subscribe(clientId, channels, options = {}) {
      const where = "subscribe()";
      checkKnownKeys(where, "option", SUBSCRIBE_OPTIONS, options);
      const target = {
        clientId: names.clientId(clientId),
        connectionId: checkConnectionId(where, options.connectionId),
      };
      const { clients, position } = await requestStreams({
        type: "subscribe",
        ...target,
        channels: names.changed(channels),
      });
      return { clients, position: position ? formatPosition(position.epoch, position.seq) : "" };
    },
    async unsubscribe(clientId, channels, options = {}) {
      const where = "unsubscribe()";
      checkKnownKeys(where, "option", UNSUBSCRIBE_OPTIONS, options);
      const { clients } = await requestStreams({
        type: "unsubscribe",
        clientId: names.clientId(clientId),
        connectionId: checkConnectionId(where, options.connectionId),
        channels: names.changed(channels),
        reason: checkReason(where, options.reason),
      });
      return { clients };
    },
  };
}

/** Returns `history` of a broker, which may live in another process. */
export function historyMethod({ names, history }: Pick<BrokerBackend, "names" | "history">): Pick<Broker, "history"> {
  return {
    history: async (options = {}) => {
      checkKnownKeys("history()", "option", HISTORY_OPTIONS, options);
      const { channels, after, from = "earliest", limit = DEFAULT_LIMIT, signal } = options;
      if (after !== undefined && typeof after !== "string")
        throw new TypeError(`history() refused: after must be an id, not ${String(after)}.`);
      if (from !== "earliest")
        throw new TypeError(`history() refused: from must be "earliest" or left out, not ${String(from)}.`);
      if (!Number.isInteger(limit) || limit < 0 || limit > MAX_LIMIT)
        throw new RangeError(`history() refused: limit must be from 0 to ${MAX_LIMIT}, not ${String(limit)}.`);
      return history(keysOf(names.targets(channels)), { lastEventId: after, from }, limit, signal);
    },
  };
}

/** Returns `broadcast` and `broadcastTo` of a broker, which may live in another process. */
export function publishMethods({
  names,
  publish,
}: Pick<BrokerBackend, "names" | "publish">): Pick<Broker, "broadcast" | "broadcastTo"> {
  async function send(
    keys: readonly string[],
    event: EventInput,
    { report, idempotencyKey: key, ephemeral, connectionId: id }: SendToOptions,
    recipient?: string,
  ): Promise<Reported> {
    const idempotencyKey = key === undefined ? undefined : idempotencyKeyOf("own", names.idempotencyKey(key));
    if ((ephemeral !== undefined && typeof ephemeral !== "boolean") || (ephemeral && (report || key !== undefined)))
      throw new TypeError(
        "Event refused: ephemeral must be true or false, and an ephemeral event has neither report nor idempotencyKey.",
      );
    const connectionId = checkConnectionId("broadcastTo()", id);
    if (connectionId !== undefined && (report || key !== undefined || ephemeral))
      throw new TypeError(
        "broadcastTo() refused: connectionId goes neither with report nor with idempotencyKey nor with ephemeral.",
      );
    return (await publish(keys, event, { report, idempotencyKey, recipient, ephemeral, connectionId })) as Reported;
  }

  async function broadcast(event: EventInput, options: BroadcastOptions = {}): Promise<Reported> {
    checkKnownKeys("broadcast()", "option", BROADCAST_OPTIONS, options);
    return send(keysOf(names.targets(options.channels)), event, options);
  }

  async function broadcastTo(clientId: string, event: EventInput, options: SendToOptions = {}): Promise<Reported> {
    checkKnownKeys("broadcastTo()", "option", SEND_TO_OPTIONS, options);
    return send([inboxKey(names.clientId(clientId))], event, options, clientId);
  }

  return { broadcast, broadcastTo };
}
