// Reads the text of a request's body, up to a limit.
import { BrokerError } from "../base/errors.ts";
import { textDecoder } from "../event/sse-format.ts";

/**
 * Returns the text of a request's body, without byte order marks at its beginning. Most runtimes remove one of them, and srvx removes none.
 * `limit` is in bytes.
 *
 * @throws {@link BrokerError} `body-too-large`, or `client-left` if the body broke off.
 */
export async function readText(request: Request, limit: number): Promise<string> {
  const text = await (isKnownToBeShort(request, limit) ? request.text().catch(brokeOff) : readInParts(request, limit));
  return text.replace(/^\uFEFF+/, "");
}

/**
 * Whether the head says that the body is within the limit, and can be trusted. A server passes on no more bytes than `Content-Length` says
 * (RFC 9112, section 6.3), unless there is a `Transfer-Encoding`, which overrides it.
 *
 * The head of a request that code has created can say anything. So the request must be of an adapter's own class: the adapters for Node imitate
 * `Request`, and read the socket without a stream. Reading their body as a stream costs more than all the rest of a publish.
 */
function isKnownToBeShort(request: Request, limit: number): boolean {
  const { headers } = request;
  const length = headers.get("content-length") ?? "";
  if (!/^\d+$/.test(length) || Number(length) > limit || headers.has("transfer-encoding")) return false;
  const prototype: object = Object.getPrototypeOf(request);
  return prototype !== Request.prototype && Object.hasOwn(prototype, "text") && !request.bodyUsed;
}

/** Reads the body as a stream and counts its bytes, because it may never end. */
async function readInParts(request: Request, limit: number): Promise<string> {
  // An empty body is null in Bun and workerd, and an empty stream in the other runtimes.
  const reader = request.body?.getReader();
  const decoder = textDecoder();
  let text = "";
  let length = 0;
  for (;;) {
    const chunk = await reader?.read().catch(brokeOff);
    if (!chunk || chunk.done) return text + decoder.decode();
    length += chunk.value.length;
    if (length > limit) {
      // The rest of the body is not needed, so an error of it does not matter.
      void reader?.cancel().catch(() => undefined);
      throw new BrokerError("body-too-large", `Event refused: its body is larger than maxBodyBytes (${limit}).`);
    }
    text += decoder.decode(chunk.value, { stream: true });
  }
}

function brokeOff(cause: unknown): never {
  throw new BrokerError("client-left", "Event refused: its body broke off.", { cause });
}
