// Texts as they are sent over the wire.
import { encode, textDecoder } from "../event/sse-format.ts";

const decoder = textDecoder();

/** Returns a text as it is sent over the wire: SQLite would store another character for a lone surrogate. */
export const wellFormed = (text: string): string => (/\p{Surrogate}/u.test(text) ? decoder.decode(encode(text)) : text);
