// Parses what scripts send and store: events, commands of other processes, and checkpoints.
import type { PeerCommand, StoredEvent } from "../engine/engine.ts";
import type { Checkpoint, FeedEvent } from "../shared-log/shared-log.ts";

/** A command, and the process that sent it. */
export interface ReceivedCommand {
  readonly from: string;
  readonly command: PeerCommand;
  /** The command's stamp, as the store wrote it. */
  readonly stamp: string;
}

const EPOCH = /^[A-Za-z0-9]{1,40}$/;
const SECRET = /^[0-9a-f]{24}$/;
const DIGITS = /^(0|[1-9][0-9]{0,15})$/;

/** Creates the error for a message that is not what it should be. */
export const refused = (reason: string): Error => new Error(`Redis message refused: ${reason}.`);

/** @throws `Error` for text that is not a position. */
export function parseSeq(digits: string | undefined): number {
  const seq = Number(digits);
  if (digits === undefined || !DIGITS.test(digits) || !Number.isSafeInteger(seq))
    throw refused(`${JSON.stringify(digits)} is not a position`);
  return seq;
}

/** @throws `Error` for text that is not an epoch. */
export function parseEpoch(epoch: string | undefined): string {
  if (epoch === undefined || !EPOCH.test(epoch)) throw refused(`${JSON.stringify(epoch)} is not an epoch`);
  return epoch;
}

/** Returns the lines of a message one by one, each without its line feed, and then the rest. */
export function linesOf(message: string): { next(): string; rest(): string } {
  let offset = 0;
  return {
    next() {
      const end = message.indexOf("\n", offset);
      if (end < 0) throw refused("it ends too early");
      const start = offset;
      offset = end + 1;
      return message.slice(start, end);
    },
    rest: () => message.slice(offset),
  };
}

/**
 * Parses an event as its channel stores it: lines with the number of keys and each key, then the text.
 *
 * @throws `Error` for what is not an event.
 */
export function parseStoredEvent(stored: string): Omit<StoredEvent, "seq"> {
  const lines = linesOf(stored);
  const keys: string[] = [];
  for (let count = parseSeq(lines.next()); count > 0; count--) keys.push(lines.next());
  return { keys, text: lines.rest() };
}

/** An event, and what proves that a script sent it. */
export interface ReceivedEvent {
  readonly event: FeedEvent;
  readonly secret: string;
}

/**
 * Parses an event: lines with the epoch and the secret, the position and the number of keys, for each key a line with the previous position
 * and one with the key, then the text.
 *
 * @throws `Error` for a message that is not an event.
 */
export function parseEvent(message: string): ReceivedEvent {
  const lines = linesOf(message);
  const [name, secret = ""] = lines.next().split(" ");
  const epoch = parseEpoch(name);
  if (!SECRET.test(secret)) throw refused("it has no secret");
  const seq = parseSeq(lines.next());
  const keys: string[] = [];
  const previous: number[] = [];
  for (let count = parseSeq(lines.next()); count > 0; count--) {
    previous.push(parseSeq(lines.next()));
    keys.push(lines.next());
  }
  return { event: { epoch, seq, keys, previous, text: lines.rest() }, secret };
}

/**
 * Parses a command: lines with its type, the sending process, milliseconds, client id, the subject or the encoded reason, and the stamp.
 *
 * @throws `Error` for a message that is not a command.
 */
export function parsePeerCommand(message: string): ReceivedCommand {
  const [type, from = "", barFor, clientId = "", last = "", stamp = "", ...more] = message.split("\n");
  if ((type !== "!disconnect" && type !== "!replace") || clientId === "" || stamp === "" || more.length > 0)
    throw refused("it is not a command");
  const isReplace = type === "!replace";
  const command: PeerCommand = {
    type: isReplace ? "replace" : "disconnect",
    clientId,
    subject: isReplace && last !== "" ? last : undefined,
    reason: isReplace || last === "" ? undefined : decodeURIComponent(last),
    barFor: parseSeq(barFor),
    at: parseSeq(stamp),
  };
  return { from, command, stamp };
}

/** One part of a checkpoint. */
interface CheckpointPart {
  /** The nonce of the request. */
  readonly nonce: string;
  readonly secret: string;
  readonly part: number;
  readonly parts: number;
  /** The checkpoint as of this part, for the keys of this part. */
  readonly checkpoint: Checkpoint;
  /** The last position of all channels that the store has forgotten. */
  readonly forgottenThrough: number;
  /** The last positions of channels that had an event since the first part. */
  readonly changed: ReadonlyMap<string, number>;
}

function parseCheckpointPart(message: string): CheckpointPart {
  const [first = "", second, ...lines] = message.split("\n");
  const [token, nonce = "", part, parts, epoch, secret = "", head, forgotten, ...more] = first.split(" ");
  if (second === undefined || more.length > 0) throw refused("it is not a checkpoint");
  const last = second === "" ? [] : second.split(" ").map(parseSeq);
  const changed = new Map<string, number>();
  for (const line of lines) {
    const space = line.indexOf(" ");
    changed.set(line.slice(space + 1), parseSeq(line.slice(0, space)));
  }
  return {
    checkpoint: { epoch: parseEpoch(epoch), head: parseSeq(head), token: parseSeq(token), last },
    nonce,
    secret,
    part: parseSeq(part),
    parts: parseSeq(parts),
    forgottenThrough: parseSeq(forgotten),
    changed,
  };
}

/** A checkpoint that this process has asked for. */
export interface CheckpointRequest {
  readonly keys: readonly string[];
  /** Nobody else knows it, so a checkpoint that has it is from the script. */
  readonly nonce: string;
}

/** A checkpoint, and the secret that its epoch's events have. */
export interface ReceivedCheckpoint {
  readonly checkpoint: Checkpoint;
  readonly secret: string;
}

/** Joins the parts of checkpoints. */
export class CheckpointAssembler {
  /** The parts of incomplete checkpoints, by token. */
  readonly #parts = new Map<number, CheckpointPart[]>();

  /**
   * Takes a part, and returns the checkpoint if it was the last one. For a channel that changed since the first part, the last part has the
   * position. For any other channel, its own part has it. A channel that was forgotten since then may have had events up to the last
   * forgotten position.
   *
   * @throws `Error` for a message that is not a part, or that nobody asked for.
   */
  take(message: string, requests: ReadonlyMap<number, CheckpointRequest>): ReceivedCheckpoint | undefined {
    const part = parseCheckpointPart(message);
    const { checkpoint, secret } = part;
    const { token } = checkpoint;
    const request = requests.get(token);
    // Checkpoints of a feed that was lost may still arrive.
    if (!request) return undefined;
    if (request.nonce !== part.nonce) throw refused("no checkpoint was asked for with its nonce");
    if (part.parts === 1) return { checkpoint, secret };
    const earlier = part.part === 1 ? [] : (this.#parts.get(token) ?? []);
    const parts = [...earlier, part];
    this.#parts.set(token, parts);
    if (part.part < part.parts) return undefined;
    this.#parts.delete(token);
    const [first] = parts;
    if (parts.length !== part.parts || !first) return undefined;
    const least = part.forgottenThrough > first.checkpoint.head ? part.forgottenThrough : 0;
    const all = parts.flatMap(({ checkpoint }) => checkpoint.last);
    const last = request.keys.map((key, index) => part.changed.get(key) ?? Math.max(all[index] ?? 0, least));
    return { checkpoint: { ...checkpoint, last }, secret };
  }
}
