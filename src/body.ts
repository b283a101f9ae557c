import { BrokerError } from "./errors.ts";
import { textDecoder } from "./event.ts";

/**
 * The text of a request's body, of at most `limit` bytes. They are counted as they come: `content-length` may lie.
 *
 * @throws {@link BrokerError} `body-too-large`, or `client-left` if the body broke off.
 */
export async function readText(request: Request, limit: number): Promise<string> {
  // Bun and workerd have no body at all for an empty one, the others an empty stream.
  const reader = request.body?.getReader();
  const decoder = textDecoder();
  let text = "";
  let length = 0;
  for (;;) {
    const chunk = await reader?.read().catch((cause: unknown) => {
      throw new BrokerError("client-left", "Event refused: its body broke off.", { cause });
    });
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
