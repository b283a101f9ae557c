import { stripVTControlCharacters } from "node:util";

/**
 * Keeps colours out of a file or a pipe. vitest 5.1 writes them wherever its output goes, because it looks at the environment only; and
 * it has looked before its configuration is read, so NO_COLOR comes too late for all but its workers.
 */
export function hideColours(): void {
  if (process.stdout.isTTY || "FORCE_COLOR" in process.env) return;
  process.env.NO_COLOR = "1";
  rewriteOutput(stripVTControlCharacters);
}

// Notices of the tools around workerd that say nothing about the project. A tool writes each of them in one call.
const NOTICES: readonly RegExp[] = [
  // In each file vitest 5.1 looks for a debugger, inside a `try`; without `nodejs_compat` workerd has no inspector.
  /^\[vitest-plugin\] "node:inspector", required from "\S+\/vitest\/dist\/chunks\/inspector\.\S+", is not available /,
  /^Fallback service failed to fetch module; payload = ; spec = \/\?specifier=node%3Ainspector&/,
  // Tests send such headers on purpose.
  /^A header value for "[^"]+" contains non-ASCII characters: /,
];
// A test fetches keys from a port where nobody listens. The library catches the failure; workerd (2026-11) reports it in three notices.
const REFUSED = /^exception = \S+ disconnected: Connection refused \(os error 111\)\n/;
const AFTER_REFUSED = /^uncaught exception; .*Error: Network connection lost\.\n/;

/** Keeps these notices out of the output. */
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

/** Passes each text that this process prints through `rewrite`. */
function rewriteOutput(rewrite: (text: string) => string): void {
  for (const stream of [process.stdout, process.stderr]) {
    const write = stream.write.bind(stream) as (chunk: unknown, ...rest: unknown[]) => boolean;
    stream.write = (chunk: unknown, ...rest: unknown[]) =>
      write(typeof chunk === "string" ? rewrite(chunk) : chunk, ...rest);
  }
}
