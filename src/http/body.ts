// Reads the text of a request's body, up to a limit.
import { BrokerError, quote } from "../base/errors.ts";
import { hasOwnBodies } from "../base/runtime.ts";
import { strictDecoder } from "../event/sse-format.ts";

/** Labels of UTF-8 (Encoding standard, section 4.2), and of ASCII, whose bytes are the same in UTF-8. */
const UTF8 = /^(?:(?:x-)?unicode-?1-1-utf-?8|unicode20utf8|x-unicode20utf8|utf-?8|(?:us-)?ascii)$/i;

/**
 * Returns the text of a request's body, without byte order marks at its beginning. Most runtimes remove one of them, and srvx removes none.
 * `limit` is in bytes.
 *
 * @throws {@link BrokerError} `unsupported-media-type` if the head declares something else than UTF-8; `body-too-large`; `bad-request` for
 * bytes that are not UTF-8; `client-left` if the body broke off; `body-already-read` if a middleware has read it.
 */
export async function readText(request: Request, limit: number): Promise<string> {
  const { headers } = request;
  checkEncoding(headers);
  // Transfer-Encoding overrides Content-Length (RFC 9112, section 6.3).
  const length = headers.has("transfer-encoding") ? NaN : Number(headers.get("content-length") ?? NaN);
  if (request.bodyUsed) throw alreadyRead();
  if (length > limit) throw tooLarge(limit, request.body?.getReader());
  let text: string;
  try {
    text = await (length <= limit && isOfAdapter(request) ? readWhole(request) : readInParts(request, limit));
  } catch (cause) {
    if (cause instanceof BrokerError) throw cause;
    // Runtimes throw a TypeError for a body that was read before, and another error for one that broke off.
    if (cause instanceof TypeError && !request.signal.aborted) throw alreadyRead(cause);
    throw new BrokerError("client-left", "Request refused: its body broke off.", { cause });
  }
  // Adapters for Node pass on an empty body if a middleware has read it.
  if (text === "" && length > 0) throw alreadyRead();
  return text.replace(/^\uFEFF+/, "");
}

/** @throws {@link BrokerError} `unsupported-media-type`, as RFC 9110, section 15.5.16, asks for */
function checkEncoding(headers: Headers): void {
  const coding = headers.get("content-encoding") ?? "identity";
  const charset = /;\s*charset\s*=\s*"?([^\s";,]*)/gi;
  const [other] = [...(headers.get("content-type") ?? "").matchAll(charset)].filter(
    ([, label = ""]) => !UTF8.test(label),
  );
  if (/^\s*identity\s*$/i.test(coding) && !other) return;
  const declared = other ? `charset ${quote(other[1] ?? "")}` : `content-encoding ${quote(coding)}`;
  throw new BrokerError("unsupported-media-type", `Request refused: its body has ${declared}; send plain UTF-8.`, {
    headers: { "accept-encoding": "identity" },
  });
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

async function readWhole(request: Request): Promise<string> {
  const bytes = await request.arrayBuffer();
  return decodeOrRefuse(() => strictDecoder().decode(bytes));
}

/** Reads the body as a stream and counts its bytes, because it may never end. */
async function readInParts(request: Request, limit: number): Promise<string> {
  // An empty body is null in Bun and workerd, and an empty stream in the other runtimes.
  const reader = request.body?.getReader();
  const decoder = strictDecoder();
  let text = "";
  let length = 0;
  for (;;) {
    const chunk = await reader?.read();
    if (!chunk || chunk.done) return text + decodeOrRefuse(() => decoder.decode());
    length += chunk.value.length;
    if (length > limit) throw tooLarge(limit, reader);
    text += decodeOrRefuse(() => decoder.decode(chunk.value, { stream: true }), reader);
  }
}

function decodeOrRefuse(decode: () => string, reader?: BodyReader): string {
  try {
    return decode();
  } catch (cause) {
    void dropRest(reader);
    throw new BrokerError("bad-request", "Request refused: its body is not valid UTF-8.", { cause });
  }
}

type BodyReader = ReadableStreamDefaultReader<Uint8Array> | undefined;

function tooLarge(limit: number, reader: BodyReader): BrokerError {
  void dropRest(reader);
  return new BrokerError("body-too-large", `Request refused: its body is larger than maxBodyBytes (${limit}).`);
}

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
    "Request refused: its body was read before, by a middleware such as express.json(); mount the broker before it, or pass eventHandler(request, { data }).",
    { cause },
  );
