// Checks an event as a publisher passes it, and formats it without an id.
import { BrokerError, quote } from "../base/errors.ts";
import { decodeStrictly, encode, formatEvent } from "./sse-format.ts";

const BREAKS_A_FIELD = /[\r\n\0]/;

/** An event with its type. `data` other than a string or bytes is passed to the broker's `serialize`. */
export interface EventEnvelope {
  readonly data: unknown;
  /**
   * The event type, as in `addEventListener(type)`. No CR, LF or NUL; types that begin with `fanwire-` are reserved, and so are `error` and
   * `open`, which are EventSource's own.
   */
  readonly event?: string;
  /** Milliseconds that the client waits before it reconnects; a whole number, 0 or more. */
  readonly retry?: number;
}

/** An event to publish: text, bytes (UTF-8), or an envelope. */
export type EventInput = string | Uint8Array | ArrayBuffer | EventEnvelope;

/** Options of the broker that events depend on. */
export interface EventRules {
  readonly serialize: (data: unknown) => string;
  readonly maxEventBytes: number;
  readonly events?: CheckData | undefined;
}

/**
 * Checks the data of an event by the schema of its type, and returns the output of the schema. `isBody`: text is the body of a request.
 *
 * @throws {@link BrokerError} `bad-event-type`, `bad-event-data`; `TypeError` for a schema that returns a promise; `Error` for one that fails
 */
export type CheckData = (event: string | undefined, data: unknown, isBody: boolean) => unknown;

/**
 * Checks an event and formats it without an id, which the engine assigns.
 *
 * @throws `TypeError` for a value that is not an event; {@link BrokerError} `bad-event-type` or `event-too-large`; as {@link CheckData}.
 */
export function prepareEvent(input: EventInput, rules: EventRules, isBody = false): string {
  const { data, event, retry } = isText(input) ? { data: input } : checkEnvelope(input);
  if (event !== undefined) checkEventType(event);
  const { serialize, events } = rules;
  // With a schema, a string is serialized as well: as plain text, a reader would take "42" for a number.
  const formatted = events
    ? serializeWith(serialize, events(event, data, isBody))
    : isText(data)
      ? toText(data)
      : serializeWith(serialize, data);
  const text = formatEvent({ event, retry, data: formatted });
  // A UTF-16 code unit takes three bytes at most, so the length alone decides for most events.
  if (text.length * 3 > rules.maxEventBytes && encode(text).length > rules.maxEventBytes) {
    throw new BrokerError(
      "event-too-large",
      `Event refused: its encoded form is larger than maxEventBytes (${rules.maxEventBytes}).`,
    );
  }
  return text;
}

type Text = string | ArrayBuffer | ArrayBufferView;
/** Whether data is text already, or its bytes. */
export const isText = (value: unknown): value is Text =>
  typeof value === "string" || value instanceof ArrayBuffer || ArrayBuffer.isView(value);

/** Returns text as a string. @throws `TypeError` for bytes that are not UTF-8 */
export const toText = (value: Text): string => (typeof value === "string" ? value : decodeStrictly(value));

function serializeWith(serialize: EventRules["serialize"], data: unknown): string {
  const text: unknown = serialize(data);
  if (typeof text !== "string")
    throw new TypeError(`Event refused: serialize() returned ${typeof text} for its data; it must return a string.`);
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

/** Checks an event type. @throws `TypeError`; {@link BrokerError} `bad-event-type` */
export function checkEventType(event: unknown): void {
  if (typeof event !== "string") throw new TypeError(`Event refused: event must be a string, not ${typeof event}.`);
  if (BREAKS_A_FIELD.test(event)) {
    throw new BrokerError("bad-event-type", `Event refused: its type ${quote(event)} contains CR, LF or NUL.`);
  }
  if (event.startsWith("fanwire-")) {
    throw new BrokerError(
      "bad-event-type",
      `Event refused: the type ${quote(event)} is reserved; choose another prefix.`,
    );
  }
  // EventSource dispatches an event under its type, so a page would take it for a lost or a new connection.
  if (event === "error" || event === "open")
    throw new BrokerError(
      "bad-event-type",
      `Event refused: the type "${event}" calls the on${event} of an EventSource; choose another type.`,
    );
}
