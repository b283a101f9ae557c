// Runs for the Vercel AI SDK (`ai` 7): UI message streams that `useChat({ resume: true })` and `WorkflowChatTransport` continue.
import { formatRunId, type RunEnd } from "../engine/run-store.ts";
import { parsePosition } from "../event/position.ts";
import type { PipeOptions } from "./pipe.ts";
import type { Run } from "./run.ts";
import type { ResponseOptions } from "./run-response.ts";
import type { Runs } from "./runs.ts";

/**
 * The last chunks, by the end of the run. The clients take a stream that merely ends for a finished answer, and `WorkflowChatTransport` asks for
 * more until there is a `finish`.
 */
const TRAILERS: Readonly<Record<RunEnd, string>> = {
  ended: "",
  failed: 'data: {"type":"error","errorText":"The answer broke off."}\n\n',
  stopped: 'data: {"type":"abort"}\n\ndata: {"type":"finish"}\n\n',
  // The body ends with an error.
  lost: "",
};
const VISIBLE_ASCII = /^[!-~]+$/;

/**
 * Returns the option `consumeSseStream` of `createUIMessageStreamResponse` and `toUIMessageStreamResponse`: writes their stream to a run, and closes
 * the run. A client that leaves stops nothing.
 *
 * @example createUIMessageStreamResponse({ stream, consumeSseStream: consumeSseStream(await runs.start(chatId)) })
 */
export const consumeSseStream =
  (run: Run, { waitUntil }: Pick<PipeOptions, "waitUntil"> = {}) =>
  async ({ stream }: { readonly stream: ReadableStream<string> }): Promise<void> => {
    await run.pipe(stream, { format: "sse", waitUntil });
  };

/**
 * Answers the request of `DefaultChatTransport` or `WorkflowChatTransport` for the stream of a run: all of it, or from `?startIndex=` on, which counts
 * from the end if it is negative. 204 for an unknown run, and with `ended: 204` for one that is over: there is nothing to resume.
 */
export async function uiMessageStreamResponse(
  runs: Runs,
  id: string,
  request: Request,
  options: Pick<ResponseOptions, "ended" | "headers" | "context"> = {},
): Promise<Response> {
  const headers = new Headers(options.headers);
  headers.set("x-vercel-ai-ui-message-stream", "v1");
  if (VISIBLE_ASCII.test(id)) headers.set("x-workflow-run-id", id);
  let after: string | undefined;
  const startIndex = new URL(request.url).searchParams.get("startIndex");
  // A refusal, such as that of the id, becomes the answer below.
  const info = startIndex === null ? undefined : await runs.inspect(id).catch(() => undefined);
  if (startIndex !== null && info) {
    headers.set("x-workflow-stream-tail-index", String(info.events - 1));
    const index = Number(startIndex);
    const skipped = index < 0 ? Math.max(0, info.events + index) : index;
    const { epoch } = parsePosition(info.lastEventId ?? "") ?? { epoch: "" };
    after = skipped === 0 ? "-1" : formatRunId(epoch, skipped);
  }
  const trailer = (end: RunEnd): string => `${TRAILERS[end]}data: [DONE]\n\n`;
  return runs.response(id, request, { ...options, headers, after, trailer, unknown: 204 });
}
