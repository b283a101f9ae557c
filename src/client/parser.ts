// Parses the text of an event stream (HTML standard, section 9.2.6). Gives the same blocks as `eventsource-parser`, which a test checks.
import type { Block } from "./events.ts";

export interface Parser {
  /** Takes the next text, and calls back with each block that it completes. */
  feed(text: string): void;
  /** Characters of the block that is not complete yet. */
  readonly pending: number;
  /** The last reconnection time of the stream, in milliseconds. */
  readonly retry: number | undefined;
}

/** A CR that ends a line without LF, or at whose LF the text was cut. */
const LONE_CR = /\r(?!\n)/;

/** Creates a parser. The text must come from a decoder that drops a byte order mark, as `TextDecoder` does. */
export function createParser(onBlock: (block: Block) => void): Parser {
  /** Pieces of a line that is not complete. They are joined once, so that a long line costs no more than its length. */
  let pieces: string[] = [];
  let pieceLength = 0;
  /** Whether the last text ended with CR, of which a LF at the beginning of the next one is a part. */
  let endedWithCr = false;
  let [type, data, id, retry]: [string, string?, string?, number?] = ["message"];

  function takeField(name: string, value: string): void {
    if (name === "data") data = data === undefined ? value : `${data}\n${value}`;
    else if (name === "id" && !value.includes("\0")) id = value;
    else if (name === "event") type = value || "message";
    else if (name === "retry" && /^\d+$/.test(value)) retry = Number(value);
  }

  /** Takes the lines of a text. Returns the index of its last line, which is not complete. */
  function takeLines(text: string): number {
    let start = 0;
    for (let next = text.indexOf("\n"); next >= 0; next = text.indexOf("\n", start)) {
      const end = next > start && text.charCodeAt(next - 1) === 13 ? next - 1 : next;
      const first = text.charCodeAt(start);
      if (start === end) {
        if (data !== undefined || id !== undefined) onBlock({ type, data, id });
        type = "message";
        data = id = undefined;
      } else if (first === 100 && end > start + 5 && isData(text, start)) {
        const value = text.slice(start + 6, end);
        if (data === undefined && text.charCodeAt(next + 1) === 10) {
          // The usual end of an event, which is a blank line, is taken at once.
          onBlock({ type, data: value, id });
          type = "message";
          id = undefined;
          next++;
        } else {
          data = data === undefined ? value : `${data}\n${value}`;
        }
      } else if (first === 105 && text.charCodeAt(start + 2) === 58 && text.charCodeAt(start + 1) === 100) {
        takeField("id", text.slice(text.charCodeAt(start + 3) === 32 ? start + 4 : start + 3, end));
      } else if (first === 101 && text.charCodeAt(start + 6) === 32 && text.startsWith("event:", start)) {
        type = text.slice(start + 7, end) || "message";
      } else if (first !== 58) {
        let colon = start + 1;
        while (colon < end && text.charCodeAt(colon) !== 58) colon++;
        const from = text.charCodeAt(colon + 1) === 32 ? colon + 2 : colon + 1;
        takeField(text.slice(start, colon), from < end ? text.slice(from, end) : "");
      }
      start = next + 1;
    }
    return start;
  }

  return {
    feed(chunk) {
      if (chunk === "") return;
      let text = endedWithCr && chunk.charCodeAt(0) === 10 ? chunk.slice(1) : chunk;
      endedWithCr = chunk.charCodeAt(chunk.length - 1) === 13;
      if (text.includes("\r") && LONE_CR.test(text)) text = text.replace(/\r\n?/g, "\n");
      pieces.push(text);
      pieceLength += text.length;
      if (!text.includes("\n")) return;
      text = pieces.join("");
      text = text.slice(takeLines(text));
      pieces = [text];
      pieceLength = text.length;
    },
    get pending() {
      return pieceLength + (data?.length ?? 0);
    },
    get retry() {
      return retry;
    },
  };
}

/** Whether a line that begins with "d" begins with "data: ". A search, or `startsWith`, would take half of the parser's time. */
const isData = (text: string, start: number): boolean =>
  text.charCodeAt(start + 1) === 97 &&
  text.charCodeAt(start + 2) === 116 &&
  text.charCodeAt(start + 3) === 97 &&
  text.charCodeAt(start + 4) === 58 &&
  text.charCodeAt(start + 5) === 32;
