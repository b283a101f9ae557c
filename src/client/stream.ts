// A stream of one's own: opens it, reads it, watches its silence, and opens it again. Knows nothing of what events mean.
import { ConnectError, errorOf, isTemporary, retryAfter } from "./connect-error.ts";
import type { Block } from "./events.ts";
import { requestFor } from "./options.ts";
import { createParser } from "./parser.ts";
import type { Source, SourceHost } from "./source.ts";

/** Milliseconds before the next attempt, until the server says another `retry`. */
const RETRY = 2_000;
/** The longest pause after failures, unless `retry` or `Retry-After` is longer; and the time that an answer may take. */
const MAX_PAUSE = 30_000;
/** The most characters of one event. */
const MAX_EVENT = 2 ** 25;
/** The longest time that a timer can wait. */
const MAX_TIMER = 2 ** 31 - 1;

const isOffline = (): boolean => (globalThis as { navigator?: { onLine?: boolean } }).navigator?.onLine === false;

/** Creates a stream. It opens at `start()`. */
export function createStream(host: SourceHost): Source {
  const { options } = host;
  let abort = new AbortController();
  let wake: () => void = () => undefined;
  let isClosed = false;
  let isSuspended = false;
  /** The next attempt is to be made at once. */
  let isHasty = false;
  /** The last attempt was refused with 401. */
  let isRefused = false;
  let retry = RETRY;
  /** Attempts in a row without an event. */
  let failures = 0;
  /** The time before which the server does not want to be asked again. */
  let notBefore = 0;
  let watchdog: ReturnType<typeof setTimeout> | undefined;

  async function run(): Promise<void> {
    while (!isClosed) {
      const pause = isSuspended || isOffline() ? Infinity : notBefore - Date.now();
      if (pause > 0) {
        await sleep(pause);
        continue;
      }
      isHasty = false;
      failures++;
      abort = new AbortController();
      const error = await attempt(abort.signal).catch((cause) => cause);
      clearTimeout(watchdog);
      abort.abort();
      if (!isClosed && !isHasty && !isSuspended) await sleep(Math.max(nextPause(), notBefore - Date.now()), error);
    }
  }

  /** Returns a random time from `retry` to twice as much for each failure, up to 30 s. */
  function nextPause(): number {
    const most = Math.max(retry, Math.min(MAX_PAUSE, Math.max(retry, 100) * 2 ** failures));
    return retry + Math.random() * (failures > 0 ? most - retry : retry / 4);
  }

  async function sleep(ms: number, error?: unknown): Promise<void> {
    host.setState("waiting", ms < Infinity ? ms : undefined, error);
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((resolve) => {
      wake = resolve;
      if (ms < Infinity) timer = setTimeout(resolve, Math.min(ms, MAX_TIMER));
    });
    clearTimeout(timer);
  }

  /** Opens a stream and reads it to its end. Returns or throws why it ended, if that was not the server's wish. */
  async function attempt(signal: AbortSignal): Promise<unknown> {
    const wasRefused = isRefused;
    isRefused = false;
    host.setState("connecting");
    watch(options.silence ?? MAX_PAUSE);
    const [url, init] = await requestFor(host);
    signal.throwIfAborted();
    const response = await (options.fetch ?? fetch)(url, { ...init, signal });
    const { status, body, headers } = response;
    if (status === 200 && body && /^text\/event-stream/i.test(headers.get("content-type") ?? "")) {
      host.onOpen(headers);
      return read(body.getReader(), signal);
    }
    if (status === 204) return host.finish();
    const error = await errorOf("connect()", response);
    if (isTemporary(status)) {
      notBefore = Date.now() + retryAfter(response);
      return error;
    }
    if (status !== 401 || wasRefused || typeof options.headers !== "function") return host.finish(error);
    isRefused = isHasty = true;
    return undefined;
  }

  async function read(reader: ReadableStreamDefaultReader<Uint8Array>, signal: AbortSignal): Promise<unknown> {
    // Not every fetch ends a read when its signal is aborted.
    signal.addEventListener("abort", () => void reader.cancel().catch(() => undefined));
    const decoder = new TextDecoder();
    let blocks: Block[] = [];
    const parser = createParser((block) => blocks.push(block));
    host.setState("open");
    for (;;) {
      watch(host.silence);
      const { done, value } = await reader.read();
      clearTimeout(watchdog);
      if (done) return signal.reason;
      parser.feed(decoder.decode(value, { stream: true }));
      retry = parser.retry() ?? retry;
      if (parser.pending() > MAX_EVENT)
        return host.finish(new ConnectError("event-too-large", "connect() ended: an event is too large."));
      const received = blocks;
      blocks = [];
      if (received.some(({ type }) => type !== "fanwire-end")) failures = 0;
      // Also without any: a heartbeat is a sign of life. Nothing is read in the meantime, so nothing is buffered, and the server sees a slow client.
      await host.receive(received);
      signal.throwIfAborted();
    }
  }

  function watch(ms: number): void {
    clearTimeout(watchdog);
    const giveUp = (): void => abort.abort(new Error(`Connection given up: it was silent for ${ms} ms.`));
    if (ms < MAX_TIMER) watchdog = setTimeout(giveUp, ms);
  }

  function restart(): void {
    isHasty = true;
    abort.abort();
    wake();
  }

  return {
    start: () => void run(),
    restart,
    wake: () => wake(),
    suspend() {
      isSuspended = true;
      abort.abort();
    },
    resume() {
      if (isSuspended) {
        isSuspended = false;
        restart();
      } else {
        wake();
      }
    },
    close() {
      isClosed = true;
      restart();
    },
  };
}
