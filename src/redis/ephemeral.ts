// Events that are not stored, as messages of the feed.
import { linesOf, parseEpoch, parseSeq, refused } from "./messages.ts";

/** An event that is not stored, and what proves that a process of this log sent it. */
export interface EphemeralMessage {
  readonly epoch: string;
  readonly secret: string;
  readonly process: string;
  /** The number of the message. Each process counts its own. */
  readonly number: number;
  readonly keys: readonly string[];
  /** The wire form without an id. */
  readonly text: string;
}

/** Whether a message of the feed is one of {@link formatEphemeral}. */
export const isEphemeral = (message: string): boolean => message.startsWith("~");

/** Formats a message: lines with the epoch and the secret, the process and the number, the number of keys, each key, and then the text. */
export const formatEphemeral = ({ epoch, secret, process, number, keys, text }: EphemeralMessage): string =>
  [`~${epoch} ${secret}`, `${process} ${number}`, keys.length, ...keys, text].join("\n");

/** Parses a message. @throws `Error` for one that is not an ephemeral event */
export function parseEphemeral(message: string): EphemeralMessage {
  const lines = linesOf(message);
  const [name = "", secret = ""] = lines.next().slice(1).split(" ");
  const epoch = parseEpoch(name);
  const [process = "", number] = lines.next().split(" ");
  if (process === "") throw refused("it names no process");
  const keys: string[] = [];
  const sent = parseSeq(number);
  for (let count = parseSeq(lines.next()); count > 0; count--) keys.push(lines.next());
  return { epoch, secret, process, number: sent, keys, text: lines.rest() };
}

/** Recognizes copies: a message for several channels arrives through each of them. */
export class SeenMessages {
  /** The last message of each process. */
  readonly #last = new Map<string, number>();

  /** Whether a message is the first copy that arrived. */
  isFirst({ process, number }: EphemeralMessage): boolean {
    if (number <= (this.#last.get(process) ?? 0)) return false;
    // A process that was not heard of for long is the first one here.
    this.#last.delete(process);
    this.#last.set(process, number);
    if (this.#last.size > MAX_PROCESSES) for (const oldest of this.#last.keys()) return this.#last.delete(oldest);
    return true;
  }
}

/** Number of processes that are remembered. */
const MAX_PROCESSES = 1_000;
