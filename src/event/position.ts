// Positions of events, and their wire form: the id of an event.

/**
 * A place in the total order of a namespace. Its wire form is `<epoch>-<seq>`: characters from `[A-Za-z0-9-]`, 64 at most.
 */
export interface Position {
  /** Identifies the log. Two positions can be compared only if their epochs are the same. */
  readonly epoch: string;
  /** Counts the events of all channels of the log, from 1. 0 is the position before the first event. */
  readonly seq: number;
}

const WIRE = /^([A-Za-z0-9-]{1,47})-(0|[1-9][0-9]{0,15})$/;

/** Formats a position as a wire id. */
export const formatPosition = (epoch: string, seq: number): string => `${epoch}-${seq}`;

/** Parses a wire id. Returns `undefined` for a text that fanwire cannot have written. */
export function parsePosition(id: string): Position | undefined {
  const [, epoch, digits] = WIRE.exec(id) ?? [];
  const seq = Number(digits);
  return epoch !== undefined && Number.isSafeInteger(seq) ? { epoch, seq } : undefined;
}
