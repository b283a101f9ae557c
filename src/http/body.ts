// Reads the text of a request's body, up to a limit and a deadline.
import { BrokerError, quote } from "../base/errors.ts";
import { after, hasOwnBodies, onWorkers } from "../base/runtime.ts";
import { concat, decodeStrictly } from "../event/sse-format.ts";

/** A charset that is not UTF-8. ASCII has the same bytes. */
const OTHER_CHARSET = /;\s*charset\s*=\s*(?!"?(?:utf-?8|us-ascii)"?\s*(?:[;,]|$))/i;

/** Options of the broker that bound bodies. */
export interface BodyBounds {
  readonly maxBodyBytes: number;
  readonly bodyTimeout: number;
}

/**
 * Returns the text of a request's body, without byte order marks at its beginning. Most runtimes remove one of them, and srvx removes none.
 *
 * @throws {@link BrokerError} `unsupported-media-type` if the head declares something else than UTF-8 (RFC 9110, section 15.5.16);
 * `body-too-large`; `body-timeout`; `bad-request` for bytes that are not UTF-8; `client-left` if the body broke off; `body-already-read` if a middleware has
 * read it.
 */
export async function readText(request: Request, { maxBodyBytes: limit, bodyTimeout }: BodyBounds): Promise<string> {
  const { headers } = request;
  const coding = headers.get("content-encoding") ?? "identity";
  const type = headers.get("content-type") ?? "";
  if (!/^identity$/i.test(coding) || OTHER_CHARSET.test(type))
    throw new BrokerError(
      "unsupported-media-type",
      `Request refused: its body is ${quote(`${type} ${coding}`)}; send plain UTF-8.`,
      { headers: { "accept-encoding": "identity" } },
    );
  // Transfer-Encoding overrides Content-Length (RFC 9112, section 6.3).
  const length = headers.has("transfer-encoding") ? NaN : Number(headers.get("content-length") ?? NaN);
  let bytes: Uint8Array | ArrayBuffer;
  let cancelTimer = (): void => undefined;
  try {
    // A body that was read before has no length that means anything. workerd resets the connection of a request whose body was not read, so
    // that its publisher may not receive the answer: there the body is read up to the limit.
    if (length > limit && !request.bodyUsed && !onWorkers()) {
      void dropRest(request.body?.getReader());
      throw tooLarge(limit);
    }
    const late = new Promise<never>((_, reject) => {
      cancelTimer = after(bodyTimeout, () => reject(tooLate(bodyTimeout)));
    });
    bytes = await (length <= limit && isOfAdapter(request)
      ? Promise.race([request.arrayBuffer(), late])
      : readParts(request, limit, late));
  } catch (cause) {
    if (cause instanceof BrokerError) throw cause;
    // Runtimes throw a TypeError for a body that was read before, and another error for one that broke off.
    if (cause instanceof TypeError && !request.signal.aborted) throw alreadyRead(cause);
    throw new BrokerError("client-left", "Request refused: its body broke off.", { cause });
  } finally {
    cancelTimer();
  }
  // Adapters for Node pass on an empty body if a middleware has read it.
  if (bytes.byteLength === 0 && length > 0) throw alreadyRead();
  try {
    return decodeStrictly(bytes).replace(/^\uFEFF+/, "");
  } catch (cause) {
    throw new BrokerError("bad-request", (cause as Error).message, { cause });
  }
}

/**
 * Whether the request is of an adapter's own class, so that its `Content-Length` can be trusted: a server passes on no more bytes than that
 * (RFC 9112, section 6.3), but the head of a request that code has created can say anything. The adapters for Node imitate `Request`, and read
 * the socket without a stream. Reading their body as a stream costs more than all the rest of a publish.
 */
function isOfAdapter(request: Request): boolean {
  const prototype: object = Object.getPrototypeOf(request);
  return prototype !== Request.prototype && Object.hasOwn(prototype, "arrayBuffer");
}

type BodyReader = ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>> | undefined;

/** Reads the body as a stream and counts its bytes, because it may never end. Rejects with `late` if that rejects first. */
async function readParts(request: Request, limit: number, late: Promise<never>): Promise<Uint8Array> {
  // An empty body is null in Bun and workerd, and an empty stream in the other runtimes.
  const reader = request.body?.getReader();
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  try {
    for (;;) {
      const chunk = await (reader && Promise.race([reader.read(), late]));
      if (!chunk || chunk.done) return concat(parts);
      length += chunk.value.length;
      if (length > limit) throw tooLarge(limit);
      parts.push(chunk.value);
    }
  } catch (error) {
    if (error instanceof BrokerError) void dropRest(reader);
    throw error;
  }
}

const tooLarge = (limit: number): BrokerError =>
  new BrokerError("body-too-large", `Request refused: its body is larger than maxBodyBytes (${limit}).`);

/** The connection is of no use while the rest of the body may still come (RFC 9110, section 15.5.9). */
const tooLate = (ms: number): BrokerError =>
  new BrokerError(
    "body-timeout",
    `Request refused: its body was not complete after ${ms} ms (bodyTimeout); send it again.`,
    {
      headers: { connection: "close" },
    },
  );

/** Drops the rest of a body. Where it cannot be cancelled, it is read: a publisher that is still sending reads its answer after that. */
async function dropRest(reader: BodyReader): Promise<void> {
  try {
    if (hasOwnBodies()) await reader?.cancel();
    else while (reader && !(await reader.read()).done);
  } catch {
    // The publisher left, or the runtime has ended the request with its answer.
  }
}

const alreadyRead = (cause?: unknown): BrokerError =>
  new BrokerError(
    "body-already-read",
    "Request refused: a middleware has read its body; mount the broker before it, or pass eventHandler(request, { data }).",
    { cause },
  );
