import { BrokerError, quote } from "../base/errors.ts";

/** An event with its type. `data` that is neither a string nor bytes goes through the broker's `serialize`. */
export interface EventEnvelope {
  readonly data: unknown;
  /** The event type, as in `addEventListener(type)`. No CR, LF or NUL; names beginning with `fanwire-` are reserved. */
  readonly event?: string;
  /** Milliseconds the client waits before it reconnects; a whole number, 0 or more. */
  readonly retry?: number;
}

/** What can be published: text, bytes (UTF-8; what is not becomes U+FFFD), or an envelope. */
export type EventInput = string | Uint8Array | ArrayBuffer | EventEnvelope;

/** Fields of one event on the wire. HTML standard, section 9.2.5. */
interface WireFields {
  readonly event?: string | undefined;
  readonly id?: string | undefined;
  readonly retry?: number | undefined;
  readonly data: string;
}

const encoder = new TextEncoder();
/** Reads UTF-8 as it was sent: a byte order mark stays, what is not UTF-8 becomes U+FFFD. */
export const textDecoder = (): TextDecoder => new TextDecoder("utf-8", { ignoreBOM: true });
const decoder = textDecoder();

/** Bytes of a text in UTF-8; lone surrogates become U+FFFD. */
export const encode = (text: string): Uint8Array<ArrayBuffer> => encoder.encode(text);
const decode = (bytes: Uint8Array | ArrayBuffer): string => decoder.decode(bytes);

/** Several chunks in one; a single one is not copied. */
export function concat(parts: readonly Uint8Array<ArrayBuffer>[]): Uint8Array<ArrayBuffer> {
  const [first] = parts;
  if (first && parts.length === 1) return first;
  let length = 0;
  for (const part of parts) length += part.length;
  const whole = new Uint8Array(length);
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}

/** A comment that keeps a connection alive and that `EventSource` never shows. */
export const HEARTBEAT: Uint8Array<ArrayBuffer> = encode(":\n\n");

const NEWLINE = /\r\n|\r|\n/g;
const BREAKS_A_FIELD = /[\r\n\0]/;

/**
 * The text of one event. Data is split at CRLF, CR and LF, as section 9.2.6 reads it; an empty line and a trailing newline
 * stay. Always one space after the colon, because the reader takes one away.
 */
function formatEvent({ event, id, retry, data }: WireFields): string {
  return (
    (id === undefined ? "" : formatId(id)) +
    (event ? `event: ${event}\n` : "") +
    (retry === undefined ? "" : formatRetry(retry)) +
    `data: ${data.replace(NEWLINE, "\ndata: ")}\n\n`
  );
}

/** The line that names an event; it goes before the text of {@link prepareEvent}. */
export const formatId = (id: string): string => `id: ${id}\n`;

/** The line that sets the client's reconnection time. */
export const formatRetry = (ms: number): string => `retry: ${ms}\n`;

/** A control event: its name begins with `fanwire-`, its data is JSON. */
export const formatControl = (name: "ready" | "position" | "gap" | "end", data: object, id?: string): string =>
  formatEvent({ event: `fanwire-${name}`, id, data: JSON.stringify(data) });

/** The end of a stream: why, and when to come back. */
export const formatEnd = (reason: string, reconnect: boolean, retry: number): string =>
  formatRetry(retry) + formatControl("end", { reason, reconnect });

/** How events become text. */
export interface EventRules {
  readonly serialize: (data: unknown) => string;
  readonly maxEventBytes: number;
}

/**
 * Checks an event and makes its text, all but the id, which the engine gives.
 *
 * @throws `TypeError` for what is not an event; {@link BrokerError} `bad-event-type` or `event-too-large`.
 */
export function prepareEvent(input: EventInput, rules: EventRules): string {
  const { data, event, retry } = isText(input) ? { data: input } : checkEnvelope(input);
  if (event !== undefined) checkEventType(event);
  const text = formatEvent({ event, retry, data: isText(data) ? toText(data) : serializeWith(rules.serialize, data) });
  // A character takes at most three bytes, so most events are judged by their length alone.
  if (text.length * 3 > rules.maxEventBytes && encode(text).length > rules.maxEventBytes) {
    throw new BrokerError(
      "event-too-large",
      `Event refused: its encoded form is over maxEventBytes (${rules.maxEventBytes}).`,
    );
  }
  return text;
}

type Text = string | ArrayBuffer | ArrayBufferView;
const isText = (value: unknown): value is Text =>
  typeof value === "string" || value instanceof ArrayBuffer || ArrayBuffer.isView(value);

function toText(value: Text): string {
  if (typeof value === "string") return value;
  return decode(ArrayBuffer.isView(value) ? new Uint8Array(value.buffer, value.byteOffset, value.byteLength) : value);
}

function serializeWith(serialize: EventRules["serialize"], data: unknown): string {
  const text: unknown = serialize(data);
  if (typeof text !== "string")
    throw new TypeError(`Event refused: serialize() gave ${typeof text}, not a string, for its data.`);
  return text;
}

function checkEnvelope(input: EventEnvelope): EventEnvelope {
  if (typeof input !== "object" || input === null) {
    throw new TypeError(
      `Event refused: ${typeof input} is not an event; pass a string, bytes, or { data, event?, retry? }.`,
    );
  }
  for (const key of Object.keys(input)) {
    if (key !== "data" && key !== "event" && key !== "retry") {
      throw new TypeError(`Event refused: unknown key ${quote(key)}; to send an object, wrap it as { data: object }.`);
    }
  }
  if (input.data === undefined) throw new TypeError("Event refused: it has no data; pass { data: … }.");
  const { retry } = input;
  if (retry !== undefined && !(Number.isSafeInteger(retry) && retry >= 0)) {
    throw new TypeError("Event refused: retry must be a whole number of milliseconds, 0 or more.");
  }
  return input;
}

/** @throws `TypeError`; {@link BrokerError} `bad-event-type` */
export function checkEventType(event: unknown): void {
  if (typeof event !== "string") throw new TypeError(`Event refused: event must be a string, not ${typeof event}.`);
  if (BREAKS_A_FIELD.test(event)) {
    throw new BrokerError("bad-event-type", `Event refused: its type ${quote(event)} has a CR, LF or NUL.`);
  }
  if (event.startsWith("fanwire-")) {
    throw new BrokerError(
      "bad-event-type",
      `Event refused: the type ${quote(event)} is reserved; choose another prefix.`,
    );
  }
}

/** Reads back what {@link prepareEvent} made, for those who listen inside the process. */
export function parseEvent(bytes: Uint8Array): { id: string; event?: string; data: string } {
  const data: string[] = [];
  const fields: { id: string; event?: string } = { id: "" };
  for (const line of decode(bytes).split("\n")) {
    if (line.startsWith("data: ")) data.push(line.slice(6));
    else if (line.startsWith("id: ")) fields.id = line.slice(4);
    else if (line.startsWith("event: ")) fields.event = line.slice(7);
  }
  return { ...fields, data: data.join("\n") };
}
