// Formats events for the wire (HTML standard, section 9.2.5). Ids and types have been checked before.

/** Fields of one event. */
interface WireFields {
  readonly event?: string | undefined;
  readonly id?: string | undefined;
  readonly retry?: number | undefined;
  readonly data: string;
}

const encoder = new TextEncoder();
/** Creates a decoder that keeps a byte order mark and replaces invalid UTF-8 by U+FFFD. */
export const textDecoder = (): TextDecoder => new TextDecoder("utf-8", { ignoreBOM: true });
const decoder = textDecoder();

/** Encodes a text as UTF-8. Lone surrogates become U+FFFD. */
export const encode = (text: string): Uint8Array<ArrayBuffer> => encoder.encode(text);
const isAscii = /^[\0-\x7f]*$/;
/** Returns the bytes of a text in UTF-8. */
export const byteLength = (text: string): number => (isAscii.test(text) ? text.length : encode(text).length);

const LF = 10;
/** Returns where an event in its wire form ends that begins at an offset: behind an empty line, which no event has inside. */
export function endOfEvent(bytes: Uint8Array, offset: number): number {
  for (let index = bytes.indexOf(LF, offset); index >= 0; index = bytes.indexOf(LF, index + 1))
    if (bytes[index + 1] === LF) return index + 2;
  return bytes.length;
}

/** Decodes UTF-8. Invalid bytes become U+FFFD. */
export const decode = (bytes: Uint8Array | ArrayBuffer): string => decoder.decode(bytes);

/** Decodes UTF-8. @throws `TypeError` for invalid bytes */
export function decodeStrictly(bytes: ArrayBuffer | ArrayBufferView): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes as Uint8Array<ArrayBuffer>);
  } catch (cause) {
    throw new TypeError("Event refused: its bytes are not valid UTF-8; encode other data as text, such as base64.", {
      cause,
    });
  }
}

/** Joins chunks. A single chunk is not copied. */
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

/**
 * A comment that keeps a connection alive. A parser ignores it. No blank line follows, because some clients dispatch an empty message for a
 * block without data (fetch-event-source 2.0.1).
 */
export const HEARTBEAT: Uint8Array<ArrayBuffer> = encode(":\n");

const NEWLINE = /\r\n|\r|\n/g;

/**
 * Formats one event. Data is split at CRLF, CR and LF, as a parser splits lines (section 9.2.6). Empty lines and a trailing newline are kept.
 * One space always follows the colon, because a parser removes one.
 */
export function formatEvent({ event, id, retry, data }: WireFields): string {
  const text =
    (event ? `event: ${event}\n` : "") +
    (retry === undefined ? "" : formatRetry(retry)) +
    `data: ${data.replace(NEWLINE, "\ndata: ")}\n\n`;
  return id === undefined ? text : withId(text, id);
}

/**
 * Adds the id to the text of an event. It is the last line, because some clients store an id as soon as its line arrives (fetch-event-source
 * 2.0.1, Datastar): a connection that broke off inside the data would lose the event.
 */
export const withId = (text: string, id: string): string => `${text.slice(0, -1)}id: ${id}\n\n`;

/** Takes the id of an event off its text again. The text must be of {@link withId}. */
export function splitId(whole: string): { readonly id: string; readonly text: string } {
  const end = whole.lastIndexOf("id: ");
  return { id: whole.slice(end + 4, -2), text: `${whole.slice(0, end)}\n` };
}

/** Formats the line that sets the client's reconnection time. */
export const formatRetry = (ms: number): string => `retry: ${ms}\n`;

type ControlEvent = "ready" | "position" | "gap" | "channels" | "snapshot" | "lost" | "end";

/** Formats a control event: its type begins with `fanwire-`, and its data is JSON. */
export const formatControl = (name: ControlEvent, data: object, id?: string): string =>
  formatEvent({ event: `fanwire-${name}`, id, data: JSON.stringify(data) });

/** Formats `fanwire-end`: why the stream ends, after how many milliseconds to reconnect, and the application's reason. */
export const formatEnd = (reason: string, reconnect: boolean, retry: number, detail?: string): string =>
  formatRetry(retry) + formatControl("end", { reason, reconnect, detail });

/** Parses an event that this module formatted. Used by `listen()`. */
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
