// The protocol between the Worker that holds a stream and the object that holds the log, over one WebSocket per client. The object's frames
// are binary: version, kind, two positions, and a payload. The Worker's frames are JSON.
import { BrokerError, type ErrorCode, type EventIssue } from "../base/errors.ts";
import type { DisconnectReason } from "../delivery/connection.ts";
import { encode, textDecoder } from "../event/sse-format.ts";
import type { ResolvedGrant } from "../http/authorize.ts";
import { asBrokerError } from "../http/problem.ts";
import type { StartOptions } from "../log/resume.ts";

/** The version of the protocol. A side that receives a frame of another version closes the socket; the Worker dials again. */
export const VERSION = 1;

/** The kinds of the object's frames. */
export const kinds = {
  /** Bytes for the client: everything it subscribes to after `previous` and up to `position`. */
  chunk: 1,
  /** `fanwire-position` for a quiet client, sent in place of a heartbeat. */
  position: 2,
  /** The Worker answers with an {@link Ack} of the number in `position` once the client has taken everything before this frame. */
  ackRequest: 3,
  /** The client is registered: a {@link Welcome}. */
  welcome: 4,
  /** The client is not registered: a {@link Refusal}. */
  refusal: 5,
  /** The stream ends: an {@link EndNotice}. */
  end: 6,
  /** The stream reads other channels from now on: a {@link ChannelsNotice}. The Worker presents them when it dials again. */
  channels: 7,
  /** Bytes for the client, as a chunk, behind which its id stays held back: the stream cannot go on elsewhere before the next chunk. */
  held: 8,
} as const;

/** A frame of the object: the client's stream goes from the position `previous` to `position`. */
export interface Frame {
  readonly kind: number;
  readonly previous: number;
  readonly position: number;
  readonly payload: Uint8Array<ArrayBuffer>;
}

/** Bytes before the payload: version, kind and two positions. */
const HEAD_BYTES = 18;
const decoder = textDecoder();

export function writeFrame({ kind, previous, position, payload }: Frame): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEAD_BYTES + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, VERSION);
  view.setUint8(1, kind);
  view.setFloat64(2, previous);
  view.setFloat64(10, position);
  bytes.set(payload, HEAD_BYTES);
  return bytes;
}

/** Reads a frame. Returns `undefined` if it is not a frame of this version. */
export function readFrame(data: unknown): Frame | undefined {
  if (!(data instanceof ArrayBuffer) || data.byteLength < HEAD_BYTES) return undefined;
  const view = new DataView(data);
  if (view.getUint8(0) !== VERSION) return undefined;
  return {
    kind: view.getUint8(1),
    previous: view.getFloat64(2),
    position: view.getFloat64(10),
    payload: new Uint8Array(data, HEAD_BYTES),
  };
}

/** Writes a frame without positions, whose payload is JSON. */
export const writeJsonFrame = (
  kind: number,
  message: Welcome | Refusal | EndNotice | ChannelsNotice,
): Uint8Array<ArrayBuffer> => writeFrame({ kind, previous: 0, position: 0, payload: encode(JSON.stringify(message)) });

export const readJsonFrame = <T>({ payload }: Frame): T => JSON.parse(decoder.decode(payload), revive);

/** The Worker's first frame: the grant of a client, and where it starts. */
export interface Hello {
  readonly version: number;
  readonly kind: "hello";
  readonly grant: ResolvedGrant;
  readonly clientId: string;
  readonly start: StartOptions;
  /** The URL of the client's request. */
  readonly url: string;
  /** The connection before the socket was lost. */
  readonly previous?: {
    readonly connectionId: string;
    readonly connectedAt: number;
    readonly secret?: string | undefined;
  };
}

/** The client has taken everything up to `cursor`, and every frame before the acknowledgement request of this number. */
export interface Ack {
  readonly kind: "ack";
  readonly number: number;
  readonly cursor: number;
}

/** A frame did not follow `cursor`; the object sends again from there. */
export interface Refill {
  readonly kind: "refill";
  readonly cursor: number;
}

export type WorkerFrame = Hello | Ack | Refill;

/** Reads a frame of the Worker. Returns `undefined` if it is not valid. */
export function readWorkerFrame(data: unknown): WorkerFrame | undefined {
  if (typeof data !== "string") return undefined;
  try {
    const frame = JSON.parse(data, revive);
    const { kind, version, number, cursor } = frame;
    const isKnown =
      kind === "hello"
        ? version === VERSION
        : Number.isFinite(cursor) && (kind === "refill" || (kind === "ack" && Number.isFinite(number)));
    return isKnown ? frame : undefined;
  } catch {
    return undefined;
  }
}

export const writeWorkerFrame = (frame: WorkerFrame): string => JSON.stringify(frame);

/** The options of the broker by which the Worker keeps a connection, in milliseconds. */
export interface ConnectionTiming {
  readonly heartbeat: number;
  readonly timeout: number;
  readonly tolerance: number;
  readonly maxConnectionAge: number;
  readonly retry: number;
  /** The time without an event after which a client receives `fanwire-position`. */
  readonly quietMs: number;
}

/** The object has registered the client. */
export interface Welcome {
  readonly connectionId: string;
  /** The secret that the client has received, or is about to. */
  readonly secret?: string | undefined;
  readonly epoch: string;
  /** The position where the stream starts. */
  readonly cursor: number;
  /** The first chunk of the stream. */
  readonly opening: string;
  /** Whether the position is held back behind a snapshot. */
  readonly isHeld?: boolean;
  readonly timing: ConnectionTiming;
}

/** The error that refuses a client. Without a code, its client id is barred. */
export interface Refusal {
  readonly code?: ErrorCode;
  readonly message?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly issues?: readonly EventIssue[] | undefined;
}

export const refusalOf = (thrown: unknown): Refusal => {
  const { code, message, headers, issues } = asBrokerError(thrown);
  return { code, message, headers, issues };
};

export const errorOf = ({ code = "internal", message = "", headers = {}, issues }: Refusal): BrokerError =>
  new BrokerError(code, message, { headers, issues });

/** The channels of a stream have changed. */
export interface ChannelsNotice {
  /** Their names. */
  readonly channels: readonly string[];
}

/** The object ends the stream. */
export interface EndNotice {
  readonly reason: DisconnectReason;
  /** The last chunk of the stream. Without one, the stream is aborted. */
  readonly chunk?: string;
  /** Whether the client first receives every event it has not taken. */
  readonly drain: boolean;
  /** Whether the stream is aborted if it cannot take its last chunk now. */
  readonly force?: boolean;
}

/** A ping and its answer. The runtime answers without waking the object. A missing answer shows that the socket is dead. */
export const PING: readonly [ping: string, pong: string] = ["?", "!"];

/** The close code of a side that needs the socket no longer. The reason is usually a {@link DisconnectReason}. */
export const CLOSE_NORMAL = 4000;
/** The close code of a side that received a frame it does not understand. */
export const CLOSE_PROTOCOL_ERROR = 4001;

/** Reads `null` as `Infinity`, which JSON cannot write. `null` has no other meaning in this protocol. */
const revive = (_name: string, value: unknown): unknown => (value === null ? Infinity : value);
