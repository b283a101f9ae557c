// Removes colors and notices from the output of a test run.
import { stripVTControlCharacters } from "node:util";

/**
 * Keeps colors out of a file or a pipe. vitest 5.1 writes them to every kind of output, because it checks only the environment. It checks
 * before it reads its configuration, so setting NO_COLOR here affects only its workers.
 */
export function hideColors(): void {
  if (process.stdout.isTTY || "FORCE_COLOR" in process.env) return;
  process.env.NO_COLOR = "1";
  rewriteOutput(stripVTControlCharacters);
}

// Notices of the tools around workerd that say nothing about this project. Each is written in one call.
const NOTICES: readonly RegExp[] = [
  // vitest 5.1 looks for a debugger in each file, inside a `try`. Without `nodejs_compat` workerd has no inspector.
  /^\[vitest-plugin\] "node:inspector", required from "\S+\/vitest\/dist\/chunks\/inspector\.\S+", is not available /,
  /^Fallback service failed to fetch module; payload = ; spec = \/\?specifier=node%3Ainspector&/,
  // Tests send such headers deliberately.
  /^A header value for "[^"]+" contains non-ASCII characters: /,
  // The stream of a run that goes on ends with an error, deliberately. workerd reports it wherever it passes.
  /^uncaught exception; .*BrokerError: Stream ended before its run: /,
];
// A test fetches keys from a port that nothing listens on. The library catches the failure, and workerd (2026-11) reports it in three notices.
const REFUSED = /^exception = \S+ disconnected: Connection refused \(os error 111\)\n/;
const AFTER_REFUSED = /^uncaught exception; .*Error: Network connection lost\.\n/;

/** Removes these notices from the output. */
export function hideWorkerdNotices(): void {
  let afterRefused = 0;
  function isNotice(text: string): boolean {
    if (REFUSED.test(text)) {
      afterRefused += 2;
      return true;
    }
    if (afterRefused > 0 && AFTER_REFUSED.test(text)) {
      afterRefused -= 1;
      return true;
    }
    return NOTICES.some((notice) => notice.test(text));
  }
  rewriteOutput((text) => (isNotice(text) ? "" : text));
}

/** Passes all text that this process prints through `rewrite`. */
function rewriteOutput(rewrite: (text: string) => string): void {
  for (const stream of [process.stdout, process.stderr]) {
    const write = stream.write.bind(stream) as (chunk: unknown, ...rest: unknown[]) => boolean;
    stream.write = (chunk: unknown, ...rest: unknown[]) =>
      write(typeof chunk === "string" ? rewrite(chunk) : chunk, ...rest);
  }
}
