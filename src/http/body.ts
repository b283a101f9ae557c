import { BrokerError } from "../base/errors.ts";
import { textDecoder } from "../event/sse-format.ts";

/**
 * The text of a request's body, of at most `limit` bytes. Byte order marks at its beginning are no part of it: most runtimes take one
 * away by themselves, and srvx none.
 *
 * @throws {@link BrokerError} `body-too-large`, or `client-left` if the body broke off.
 */
export async function readText(request: Request, limit: number): Promise<string> {
  const text = await (isShort(request, limit) ? request.text().catch(brokeOff) : readInParts(request, limit));
  return text.replace(/^\uFEFF+/, "");
}

/**
 * Whether the head says that the body is short, and can be believed: a server hands on no more than that (RFC 9112, section 6.3), unless
 * it comes in chunks, which win. A request that code has made may say anything, so this one has to be an adapter's own: Node's have an
 * imitation of `Request` that reads the socket without a stream, which costs more there than all the rest of publishing.
 */
function isShort(request: Request, limit: number): boolean {
  const { headers } = request;
  const length = headers.get("content-length") ?? "";
  if (!/^\d+$/.test(length) || Number(length) > limit || headers.has("transfer-encoding")) return false;
  const kind: object = Object.getPrototypeOf(request);
  return kind !== Request.prototype && Object.hasOwn(kind, "text") && !request.bodyUsed;
}

/** Counted as it comes: it may never end. */
async function readInParts(request: Request, limit: number): Promise<string> {
  // Bun and workerd have no body at all for an empty one, the others an empty stream.
  const reader = request.body?.getReader();
  const decoder = textDecoder();
  let text = "";
  let length = 0;
  for (;;) {
    const chunk = await reader?.read().catch(brokeOff);
    if (!chunk || chunk.done) return text + decoder.decode();
    length += chunk.value.length;
    if (length > limit) {
      // What the rest of it does is nobody's concern any more.
      void reader?.cancel().catch(() => undefined);
      throw new BrokerError("body-too-large", `Event refused: the body is over ${limit} bytes.`);
    }
    text += decoder.decode(chunk.value, { stream: true });
  }
}

function brokeOff(cause: unknown): never {
  throw new BrokerError("client-left", "Event refused: its body broke off.", { cause });
}
