import type { PeerCommand } from "../engine/engine.ts";
import type { Checkpoint, FeedEvent } from "../shared-log/shared-log.ts";

// What scripts send through the feed, and what they answer.

/** An order, and the process that it comes from. */
export interface Sent {
  readonly from: string;
  readonly order: PeerCommand;
  readonly id: string;
}

const EPOCH = /^[A-Za-z0-9]{1,40}$/;
const DIGITS = /^(0|[1-9][0-9]{0,15})$/;

/** @throws if it is no position. */
export function parseSeq(digits: string | undefined): number {
  const seq = Number(digits);
  if (digits === undefined || !DIGITS.test(digits) || !Number.isSafeInteger(seq))
    throw new Error(`Redis message refused: ${JSON.stringify(digits)} is no position.`);
  return seq;
}

function parseEpoch(epoch: string | undefined): string {
  if (epoch === undefined || !EPOCH.test(epoch))
    throw new Error(`Redis message refused: ${JSON.stringify(epoch)} is no epoch.`);
  return epoch;
}

/** An event: epoch, position, number of keys, for each the position before and the key, and the text. @throws for what is none. */
export function parseMessage(whole: string): FeedEvent {
  let at = 0;
  const line = (): string => {
    const end = whole.indexOf("\n", at);
    if (end < 0) throw new Error("Redis message refused: it ends too early.");
    const start = at;
    at = end + 1;
    return whole.slice(start, end);
  };
  const epoch = parseEpoch(line());
  const seq = parseSeq(line());
  const keys: string[] = [];
  const previous: number[] = [];
  for (let count = parseSeq(line()); count > 0; count--) {
    previous.push(parseSeq(line()));
    keys.push(line());
  }
  return { epoch, seq, keys, previous, text: whole.slice(at) };
}

/** An order: what to do, from whom, milliseconds, client id, subject, and its id. @throws for what is none. */
export function parseOrder(whole: string): Sent {
  const [what, from = "", barFor, clientId = "", subject, id = "", ...more] = whole.split("\n");
  if ((what !== "!disconnect" && what !== "!replace") || clientId === "" || id === "" || more.length > 0)
    throw new Error("Redis message refused: it is no order.");
  const order: PeerCommand = {
    type: what === "!replace" ? "replace" : "disconnect",
    clientId,
    subject: subject === "" ? undefined : subject,
    barFor: parseSeq(barFor),
    at: parseSeq(id),
  };
  return { from, order, id };
}

/** One of the parts of a mark. */
interface Part {
  readonly token: number;
  readonly part: number;
  readonly parts: number;
  readonly mark: Checkpoint;
  readonly forgotten: number;
  /** The channels that an event was in since the first part, and where. */
  readonly changed: ReadonlyMap<string, number>;
}

function parsePart(whole: string): Part {
  const [first = "", second, ...lines] = whole.split("\n");
  const [token, part, parts, epoch, head, forgotten, ...more] = first.split(" ");
  if (second === undefined || more.length > 0) throw new Error("Redis message refused: it is no mark.");
  const last = second === "" ? [] : second.split(" ").map(parseSeq);
  const changed = new Map<string, number>();
  for (const line of lines) {
    const space = line.indexOf(" ");
    changed.set(line.slice(space + 1), parseSeq(line.slice(0, space)));
  }
  const mark = { epoch: parseEpoch(epoch), head: parseSeq(head), token: parseSeq(token), last };
  return {
    token: mark.token,
    part: parseSeq(part),
    parts: parseSeq(parts),
    mark,
    forgotten: parseSeq(forgotten),
    changed,
  };
}

/** Puts marks together that come in parts. */
export class Assembly {
  /** The parts of each that has not come whole, by token. */
  readonly #parts = new Map<number, Part[]>();

  /**
   * Takes a part, and answers with the mark when it was the last one. A channel that changed since the first part is where the last part says;
   * any other is where its own part said. One that was forgotten meanwhile may have been anywhere up to what is forgotten by now.
   *
   * @throws for what is no part.
   */
  take(whole: string, keysOf: (token: number) => readonly string[] | undefined): Checkpoint | undefined {
    const part = parsePart(whole);
    if (part.parts === 1) return part.mark;
    const before = part.part === 1 ? [] : (this.#parts.get(part.token) ?? []);
    const parts = [...before, part];
    this.#parts.set(part.token, parts);
    if (part.part < part.parts) return undefined;
    this.#parts.delete(part.token);
    const [first] = parts;
    const keys = keysOf(part.token);
    if (parts.length !== part.parts || !first || !keys) return undefined;
    const least = part.forgotten > first.mark.head ? part.forgotten : 0;
    const all = parts.flatMap(({ mark }) => mark.last);
    const last = keys.map((key, index) => part.changed.get(key) ?? Math.max(all[index] ?? 0, least));
    return { ...part.mark, last };
  }
}
