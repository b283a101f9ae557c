import { BrokerError, type ErrorCode } from "../base/errors.ts";
import type { DisconnectReason } from "../delivery/stream-connection.ts";
import { encode, textDecoder } from "../event/event.ts";
import type { ResolvedGrant } from "../http/authorize.ts";
import { asBrokerError } from "../http/problem.ts";
import type { StartOptions } from "../log/resume.ts";

// What the Worker that holds a stream and the object that holds the log say to each other, over one WebSocket for each client. The
// object's frames are binary: version, kind, two positions, and what belongs to the kind. The Worker's are JSON.

/** Both sides must be of the same; who meets another one closes the socket, and the client's stream goes on once both are. */
export const VERSION = 1;

/** Kinds of the object's frames. */
export const kinds = {
  /** Bytes for the client: all that concerns it after `previous` and up to `position`. */
  chunk: 1,
  /** As a chunk, to be given instead of a heartbeat to a client that was told nothing for long. */
  pulse: 2,
  /** The Worker is to answer with an {@link Ack} of the number in `position` once the client has taken everything before this. */
  ask: 3,
  /** The client is registered: a {@link Welcome}. */
  welcome: 4,
  /** It is not: a {@link Refusal}. */
  refusal: 5,
  /** The stream is over: a {@link EndNotice}. */
  end: 6,
} as const;

/** One frame of the object. */
export interface Frame {
  readonly kind: number;
  readonly previous: number;
  readonly position: number;
  readonly payload: Uint8Array<ArrayBuffer>;
}

const HEAD = 18;
const decoder = textDecoder();

export function writeFrame({ kind, previous, position, payload }: Frame): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEAD + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, VERSION);
  view.setUint8(1, kind);
  view.setFloat64(2, previous);
  view.setFloat64(10, position);
  bytes.set(payload, HEAD);
  return bytes;
}

/** `undefined` for what is no frame of this version. */
export function readFrame(data: unknown): Frame | undefined {
  if (!(data instanceof ArrayBuffer) || data.byteLength < HEAD) return undefined;
  const view = new DataView(data);
  if (view.getUint8(0) !== VERSION) return undefined;
  return {
    kind: view.getUint8(1),
    previous: view.getFloat64(2),
    position: view.getFloat64(10),
    payload: new Uint8Array(data, HEAD),
  };
}

/** What a frame with no position carries. */
export const writeJsonFrame = (kind: number, note: Welcome | Refusal | EndNotice): Uint8Array<ArrayBuffer> =>
  writeFrame({ kind, previous: 0, position: 0, payload: encode(JSON.stringify(note)) });

export const readJsonFrame = <T>({ payload }: Frame): T => JSON.parse(decoder.decode(payload), revive);

/** What a client is admitted with, and where it wishes to start. */
export interface Hello {
  readonly version: number;
  readonly kind: "hello";
  readonly admission: ResolvedGrant;
  readonly clientId: string;
  readonly start: StartOptions;
  /** The address that it asked for. */
  readonly url: string;
  /** Its connection, before the socket was lost. */
  readonly again?: { readonly connectionId: string; readonly connectedAt: number };
}

/** The client has taken everything up to `cursor`, and what was sent before the ask of this number. */
export interface Ack {
  readonly kind: "ack";
  readonly number: number;
  readonly cursor: number;
}

/** What was sent does not follow `cursor`; it is to be sent from there. */
export interface Refill {
  readonly kind: "refill";
  readonly cursor: number;
}

export type WorkerFrame = Hello | Ack | Refill;

/** `undefined` for what is none. */
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

/** How the Worker is to keep a client: options of the broker, in milliseconds. */
export interface ConnectionTiming {
  readonly heartbeat: number;
  readonly timeout: number;
  readonly tolerance: number;
  readonly maxAge: number;
  readonly retry: number;
  /** How old what a client was told last has to be before it is given a pulse. */
  readonly quiet: number;
}

export interface Welcome {
  readonly connectionId: string;
  readonly epoch: string;
  /** Where it starts. */
  readonly cursor: number;
  /** What its stream begins with. */
  readonly prelude: string;
  readonly pacing: ConnectionTiming;
}

/** Why a client is not let in; without a code it is to be stopped for good. */
export interface Refusal {
  readonly code?: ErrorCode;
  readonly message?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export const refusalOf = (thrown: unknown): Refusal => {
  const { code, message, headers } = asBrokerError(thrown);
  return { code, message, headers };
};

export const errorOf = ({ code = "internal", message = "", headers = {} }: Refusal): BrokerError =>
  new BrokerError(code, message, { headers });

export interface EndNotice {
  readonly reason: DisconnectReason;
  /** The last chunk of its stream; without one the stream is cut off. */
  readonly chunk?: string;
  /** Whether what it has not taken is for it to take first. */
  readonly drains: boolean;
}

/** Asked and answered without waking the object, so that a socket which is dead shows. */
export const PING: readonly [question: string, answer: string] = ["?", "!"];

/** How the Worker closes a socket: its reason is a reason why clients are disconnected. */
export const CLOSE_NORMAL = 4000;
/** How either closes a socket on which it met what it does not understand. */
export const CLOSE_PROTOCOL_ERROR = 4001;

/** JSON has no Infinity and writes null, which stands for nothing else here. */
const revive = (_name: string, value: unknown): unknown => (value === null ? Infinity : value);
