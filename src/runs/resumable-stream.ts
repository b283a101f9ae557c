// In place of `resumable-stream`: the same four methods over runs. A chunk is kept as JSON, because it may have any characters.
import type { Runs } from "./runs.ts";

type Text = ReadableStream<string>;
/** The methods of `resumable-stream`. A stream that is done is `null`, and known for `retain` of the runs. One that goes on is not created again. */
export interface ResumableStreamContext {
  resumableStream(id: string, makeStream: () => Text, skipCharacters?: number): Promise<Text | null>;
  createNewResumableStream(id: string, makeStream: () => Text, skipCharacters?: number): Promise<Text | null>;
  resumeExistingStream(id: string, skipCharacters?: number): Promise<Text | null | undefined>;
  hasExistingStream(id: string): Promise<null | true | "DONE">;
}

/** Creates a context as `resumable-stream` does. A stream is the run `<keyPrefix>:<id>`, which `runs.stop` stops. */
export function createResumableStreamContext(
  runs: Runs,
  options: { readonly waitUntil?: ((promise: Promise<unknown>) => void) | null; readonly keyPrefix?: string } = {},
): ResumableStreamContext {
  const { keyPrefix = "resumable-stream", waitUntil } = options;
  const hasExistingStream: ResumableStreamContext["hasExistingStream"] = async (id) =>
    runs.state(`${keyPrefix}:${id}`).then((state) => (state === "unknown" ? null : state === "active" || "DONE"));
  const resumeExistingStream: ResumableStreamContext["resumeExistingStream"] = async (id, skip) => {
    // It is read at once, beside the question whether there is anything to read.
    const [text, found] = [textOf(runs, `${keyPrefix}:${id}`, skip), await hasExistingStream(id)];
    if (found !== true) void text.cancel().catch(() => undefined);
    return found === true ? text : found === null ? undefined : null;
  };
  const createNewResumableStream: ResumableStreamContext["createNewResumableStream"] = async (id, makeStream) => {
    const { pipe, close, id: key } = await runs.start(`${keyPrefix}:${id}`);
    try {
      void pipe(makeStream(), { format: "json", waitUntil: waitUntil ?? undefined });
    } catch (error) {
      return close("failed").then(() => Promise.reject(error));
    }
    return textOf(runs, key);
  };
  const resumableStream: ResumableStreamContext["resumableStream"] = async (id, makeStream, skip) => {
    const existing = await resumeExistingStream(id, skip);
    if (existing !== undefined) return existing;
    return createNewResumableStream(id, makeStream).catch(async (error) =>
      error.code === "run-exists" ? ((await resumeExistingStream(id, skip)) ?? null) : Promise.reject(error),
    );
  };
  return { resumableStream, createNewResumableStream, resumeExistingStream, hasExistingStream };
}

/** Reads a run as text. One that fails or is lost ends with an error. */
function textOf(runs: Runs, id: string, skip = 0): Text {
  const abort = new AbortController();
  const events = runs.read(id, { signal: abort.signal });
  const pull = async (controller: ReadableStreamDefaultController<string>): Promise<void> => {
    const { done, value } = await events.next();
    if (done && (await runs.state(id)) === "failed") throw new Error("Stream broke off: its source failed.");
    if (done) return controller.close();
    const chunk: string = JSON.parse(value.data);
    const rest = chunk.slice(skip);
    skip -= chunk.length - rest.length;
    return rest === "" ? pull(controller) : controller.enqueue(rest);
  };
  return new ReadableStream({ pull, cancel: () => abort.abort() });
}
