import { BrokerError } from "./errors.ts";
import { decode } from "./event.ts";

/**
 * The text of a request's body, of at most `limit` bytes. They are counted as they come: `content-length` may lie.
 *
 * @throws {@link BrokerError} `body-too-large`, or `client-left` if the body broke off.
 */
export async function readText(request: Request, limit: number): Promise<string> {
  // Bun and workerd have no body at all for an empty one, the others an empty stream.
  const reader = request.body?.getReader();
  const chunks: Uint8Array[] = [];
  let length = 0;
  for (;;) {
    const chunk = await reader?.read().catch((cause: unknown) => {
      throw new BrokerError("client-left", "Event refused: its body broke off.", { cause });
    });
    if (!chunk || chunk.done) break;
    length += chunk.value.length;
    if (length > limit) {
      // What the rest of it does is nobody's concern any more.
      void reader?.cancel().catch(() => undefined);
      throw new BrokerError("body-too-large", `Event refused: the body is over ${limit} bytes.`);
    }
    chunks.push(chunk.value);
  }
  const [only] = chunks;
  if (only && chunks.length === 1) return decode(only);
  const bytes = new Uint8Array(length);
  let offset = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, offset);
    offset += chunk.length;
  }
  return decode(bytes);
}
