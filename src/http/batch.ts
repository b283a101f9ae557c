// Batches: `POST /broadcast` with one event a line (NDJSON). All lines are checked and allowed before the first one is published.
import { BrokerError, quote, unauthorized } from "../base/errors.ts";
import { isPlain, isResponse } from "../base/validate.ts";
import type { Published, PublishOptions, Sent } from "../delivery/delivery-report.ts";
import { idempotencyKeyOf, inboxKey, keysOf } from "../event/channel-key.ts";
import { checkEventType, type EventEnvelope, type EventInput } from "../event/event.ts";
import type { NameRules } from "../event/name-rules.ts";
import type { RequestedAccess, ResolvedGrant } from "./authorize.ts";
import { type BodyBounds, readText } from "./body.ts";
import type { EventOverrides } from "./overrides.ts";
import { asBrokerError } from "./problem.ts";
import { PUBLISH_PARAMETERS } from "./query.ts";
import type { RateLimiter } from "./rate-limits.ts";

/** The most events of a batch. */
const MAX_LINES = 1_000;
const FIELDS = ["data", "event", "channels", "clientId", "idempotencyKey"];

/** Whether a request publishes a batch. Data that a middleware has parsed is one event. */
export const isBatch = ({ headers }: Request, { data }: EventOverrides): boolean =>
  data === undefined && /^application\/x-ndjson\s*(?:;|$)/i.test(headers.get("content-type") ?? "");

/** The broker that publishes. See `BrokerBackend`. */
interface BatchBroker {
  readonly settings: BodyBounds & { readonly rate?: RateLimiter | undefined };
  readonly names: NameRules;
  checkOpen(): void;
  checkEvent?(event: EventInput): void;
  publish(keys: readonly string[], event: EventInput, options: PublishOptions): Promise<Sent>;
  reportError(stage: "request", error: unknown): Promise<void>;
}

/** Asks whether a publisher is let in: once before the body is read, and again for what the first answer does not cover. */
interface Gate {
  admit(requested: RequestedAccess): ResolvedGrant | Promise<ResolvedGrant | Response>;
  ask(requested: RequestedAccess): Promise<ResolvedGrant | Response>;
}

/** The channels or the client of one event. */
type Target = Pick<RequestedAccess, "channels" | "clientId">;

interface Line {
  readonly number: number;
  readonly event: EventEnvelope;
  readonly target: Target;
  readonly key: string | undefined;
}

/**
 * Publishes the lines of a request's body, in order. With an idempotency key each line has a key of its own, so a repeat doubles nothing.
 *
 * @throws {@link BrokerError} what is thrown for one event; with `ids` of the events before it, if publishing one of them has failed
 */
export async function publishBatch(
  broker: BatchBroker,
  request: Request,
  query: URLSearchParams,
  overrides: EventOverrides,
  gate: Gate,
): Promise<Response> {
  const { names, settings } = broker;
  const misplaced = PUBLISH_PARAMETERS.find((name) => query.has(name));
  if (misplaced !== undefined || overrides.ephemeral)
    throw refused("bad-request", `${misplaced ?? "ephemeral"} is not for a batch; each line names what it needs.`);
  const batchKey = overrides.idempotencyKey ?? request.headers.get("idempotency-key") ?? undefined;
  if (batchKey !== undefined) names.idempotencyKey(batchKey);
  const fixed = targetOf(overrides, names);
  const grant = await gate.admit({ action: "publish", ...(fixed ?? { ...NOBODY, batch: true }) });
  if (isResponse(grant)) return grant;
  settings.rate?.("publishes", request, grant);
  broker.checkOpen();

  const text = await readText(request, settings);
  const lines = parse(text, broker, overrides, fixed);
  // Before authorize is asked about them, because there may be many.
  settings.rate?.("publishes", request, grant, undefined, lines.length);
  settings.rate?.("bytes", request, grant, text);
  let { expiresAt } = grant;
  for (const target of fixed ? [] : uncovered(lines, grant)) {
    const more = await gate.ask({ action: "publish", ...target });
    if (isResponse(more)) return more;
    expiresAt = Math.min(expiresAt, more.expiresAt);
  }
  if (expiresAt <= Date.now()) throw unauthorized("Batch refused: its grant has expired.");
  const { subject, byToken = false } = grant;
  const ids: string[] = [];
  for (const [index, { number, event, target, key }] of lines.entries()) {
    // No key of a publisher has a tab, so none of them is that of a line.
    const lineKey = key ?? (batchKey === undefined ? undefined : `${batchKey}\t${index}`);
    const options = {
      idempotencyKey: lineKey && idempotencyKeyOf(JSON.stringify([byToken, subject]), lineKey),
      recipient: target.clientId,
      subject,
    };
    try {
      const keys = target.clientId === undefined ? keysOf(target.channels) : [inboxKey(target.clientId)];
      const { id } = (await broker.publish(keys, event, options)) as Published;
      ids.push(id);
    } catch (cause) {
      const { code, message, headers } = asBrokerError(cause);
      if (code === "internal") void broker.reportError("request", cause);
      const text = `Batch failed at line ${number}, after ${index} of ${lines.length} events: ${message}`;
      throw new BrokerError(code, text, { cause, headers: { ...headers }, ids });
    }
  }
  return Response.json({ ids }, { headers: { "cache-control": "no-store" } });
}

const NOBODY: Target = { channels: [], clientId: undefined };

const refused = (code: BrokerError["code"], reason: string): BrokerError =>
  new BrokerError(code, `Batch refused: ${reason}`);

/** Returns the channels or the client of these fields, or `undefined` if they name neither. @throws {@link BrokerError} */
function targetOf(
  { channels, clientId }: Pick<EventOverrides, "channels" | "clientId">,
  names: NameRules,
): Target | undefined {
  if (channels === undefined && clientId === undefined) return undefined;
  if (channels !== undefined && clientId !== undefined)
    throw new BrokerError("bad-request", "it is for one client or for channels, not both.");
  return { channels: names.targets(channels), clientId: clientId === undefined ? undefined : names.clientId(clientId) };
}

/** Reads and checks all lines. */
function parse(
  text: string,
  broker: BatchBroker,
  overrides: EventOverrides,
  fixed: Target | undefined,
): readonly Line[] {
  const lines: Line[] = [];
  const keys = new Map<string, number>();
  for (const [index, line] of text.split("\n").entries()) {
    if (line.trim() === "") continue;
    if (lines.length === MAX_LINES)
      throw refused("body-too-large", `it has more than ${MAX_LINES} events; send several.`);
    const number = index + 1;
    try {
      const parsed = parseLine(line, number, broker.names, overrides, fixed);
      broker.checkEvent?.(parsed.event);
      const { key } = parsed;
      if (key !== undefined && keys.has(key))
        throw new BrokerError(
          "bad-key",
          `line ${keys.get(key)} has the same idempotencyKey; leave it out, or choose another.`,
        );
      if (key !== undefined) keys.set(key, number);
      lines.push(parsed);
    } catch (cause) {
      if (!(cause instanceof BrokerError)) throw cause;
      throw new BrokerError(cause.code, `Batch refused: line ${number}: ${cause.message}`, { cause });
    }
  }
  if (lines.length === 0) throw refused("no-event-data", "it has no events; send one a line.");
  return lines;
}

function parseLine(
  text: string,
  number: number,
  names: NameRules,
  overrides: EventOverrides,
  fixed: Target | undefined,
): Line {
  const fields = fieldsOf(text);
  const { data, event, channels, clientId, idempotencyKey: key } = fields;
  const texts = [event, clientId, key, ...(Array.isArray(channels) ? channels : [channels])];
  if (!texts.every((value) => value === undefined || typeof value === "string"))
    throw new BrokerError("bad-request", "its fields but data must be texts, and channels a text or a list of texts.");
  if (data === undefined || data === "") throw new BrokerError("no-event-data", "it has no data.");
  // A line must not replace a value that the application has set for this address.
  if ((fixed && (channels ?? clientId) !== undefined) || (overrides.type !== undefined && event !== undefined))
    throw new BrokerError("bad-request", "this address decides channels, clientId or event by itself; leave them out.");
  const type = (overrides.type ?? event) as string | undefined;
  if (type) checkEventType(type);
  if (key !== undefined) names.idempotencyKey(key);
  const target = fixed ?? targetOf(fields as Pick<EventOverrides, "channels" | "clientId">, names) ?? NOBODY;
  return { number, event: type ? { data, event: type } : { data }, target, key: key as string | undefined };
}

/** Parses a line. An unknown field may be a misspelled one, and without its channels an event would go to every client. */
function fieldsOf(text: string): Readonly<Record<string, unknown>> {
  let fields: unknown;
  try {
    fields = JSON.parse(text);
  } catch {
    throw new BrokerError("bad-request", "it is not JSON; write one object a line.");
  }
  if (!isPlain(fields)) throw new BrokerError("bad-request", 'it is not an object, such as { "data": … }.');
  const unknown = Object.keys(fields).find((name) => !FIELDS.includes(name));
  if (unknown !== undefined)
    throw new BrokerError("bad-request", `there is no field ${quote(unknown)}; known are ${FIELDS.join(", ")}.`);
  return fields;
}

/** Returns the targets of lines that a grant does not list: all channels together, and each client by itself. */
function uncovered(lines: readonly Line[], { channels, clientId, everybody, everything }: ResolvedGrant): Target[] {
  if (everything) return [];
  const granted = new Set(channels);
  const missing = new Set<string>();
  const inboxes = new Set<string>();
  let isForAll = false;
  for (const { target } of lines) {
    if (target.clientId !== undefined) inboxes.add(target.clientId);
    else if (target.channels.length === 0) isForAll = true;
    for (const channel of target.channels) if (!granted.has(channel)) missing.add(channel);
  }
  if (clientId !== undefined) inboxes.delete(clientId);
  return [
    ...(isForAll && !everybody ? [NOBODY] : []),
    ...(missing.size > 0 ? [{ channels: [...missing], clientId: undefined }] : []),
    ...Array.from(inboxes, (inbox) => ({ channels: [], clientId: inbox })),
  ];
}
