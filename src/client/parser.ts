// Parses the text of an event stream (HTML standard, section 9.2.6). Gives the same blocks as `eventsource-parser`, which a test checks.
import type { Block } from "./events.ts";

export interface Parser {
  /** Takes the next text, and calls back with each block that it completes. */
  feed(text: string): void;
  /** Counts the characters of the block that is not complete yet. */
  pending(): number;
  /** Returns the last reconnection time of the stream, in milliseconds. */
  retry(): number | undefined;
}

/** Creates a parser. The text must come from a decoder that drops a byte order mark, as `TextDecoder` does. */
export function createParser(onBlock: (block: Block) => void): Parser {
  /** The beginning of a line that is not complete. Engines join what is added when it is read, so a long line costs no more than its length. */
  let rest = "";
  /** Whether the last text ended with CR, of which a LF at the beginning of the next one is a part; whether the stream had any CR, or NUL. */
  let [endedWithCr, hasCr, hasNul] = [false, false, false];
  let [type, data, id, retry]: [string, string?, string?, number?] = ["message"];

  function takeField(name: string, value: string): void {
    if (name === "data") data = data === undefined ? value : `${data}\n${value}`;
    else if (name === "id" && !value.includes("\0")) id = value;
    else if (name === "event") type = value || "message";
    else if (name === "retry" && /^\d+$/.test(value)) retry = Number(value);
  }

  function endBlock(): void {
    if (data !== undefined || id !== undefined) onBlock({ type, data, id });
    type = "message";
    data = id = undefined;
  }

  /** Takes the lines of a text from an index on. Returns the index of its last line, which is not complete. */
  function takeLines(text: string, from: number): number {
    let start = from;
    for (let next = text.indexOf("\n", start); next >= 0; next = text.indexOf("\n", start)) {
      const end = hasCr && text.charCodeAt(next - 1) === 13 ? next - 1 : next;
      const first = text.charCodeAt(start);
      // The usual forms of the three usual fields first.
      if (first === 100 && isData(text, start)) {
        const value = text.slice(start + 6, end);
        data = data === undefined ? value : `${data}\n${value}`;
      } else if (first === 105 && !hasNul && isId(text, start)) {
        id = text.slice(start + 4, end);
      } else if (first === 101 && isEvent(text, start)) {
        type = text.slice(start + 7, end) || "message";
      } else if (start === end) {
        endBlock();
      } else if (first !== 58) {
        const [, name = "", value = ""] = /^([^:]*):? ?(.*)/s.exec(text.slice(start, end)) ?? [];
        takeField(name, value);
      }
      start = next + 1;
      // The blank line at the end of a block needs no search.
      if (text.charCodeAt(start) === 10) {
        endBlock();
        start++;
      }
    }
    return start;
  }

  return {
    feed(chunk) {
      if (chunk === "") return;
      let text = endedWithCr && chunk.charCodeAt(0) === 10 ? chunk.slice(1) : chunk;
      endedWithCr = chunk.charCodeAt(chunk.length - 1) === 13;
      hasCr ||= text.includes("\r");
      hasNul ||= text.includes("\0");
      // A CR may end a line without LF, or the text may be cut before its LF.
      if (hasCr && /\r(?!\n)/.test(text)) text = text.replace(/\r\n?/g, "\n");
      const end = text.indexOf("\n") + 1;
      // Only the first line is joined with what came before. The others are read where they are.
      rest += end > 0 ? text.slice(0, end) : text;
      if (end === 0) return;
      takeLines(rest, 0);
      rest = text.slice(takeLines(text, end));
    },
    pending: () => rest.length + (data?.length ?? 0),
    retry: () => retry,
  };
}

// Whether a line begins with "data: ", "id: " or "event: ", whose first letter is known. `startsWith` would take a third of the parser's time.
const isData = (text: string, start: number): boolean =>
  text.charCodeAt(start + 1) === 97 &&
  text.charCodeAt(start + 2) === 116 &&
  text.charCodeAt(start + 3) === 97 &&
  text.charCodeAt(start + 4) === 58 &&
  text.charCodeAt(start + 5) === 32;
const isId = (text: string, start: number): boolean =>
  text.charCodeAt(start + 1) === 100 && text.charCodeAt(start + 2) === 58 && text.charCodeAt(start + 3) === 32;
const isEvent = (text: string, start: number): boolean =>
  text.charCodeAt(start + 1) === 118 &&
  text.charCodeAt(start + 2) === 101 &&
  text.charCodeAt(start + 3) === 110 &&
  text.charCodeAt(start + 4) === 116 &&
  text.charCodeAt(start + 5) === 58 &&
  text.charCodeAt(start + 6) === 32;
