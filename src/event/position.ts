/**
 * A place in the total order of a namespace. On the wire it is `<epoch>-<seq>`, from `[A-Za-z0-9-]`, at most 64 characters.
 */
export interface Position {
  readonly epoch: string;
  readonly seq: number;
}

const WIRE = /^([A-Za-z0-9-]{1,47})-(0|[1-9][0-9]{0,15})$/;

/** The wire form of a position. */
export const formatPosition = (epoch: string, seq: number): string => `${epoch}-${seq}`;

/** Reads a wire id; `undefined` for what fanwire cannot have written. */
export function parsePosition(id: string): Position | undefined {
  const [, epoch, digits] = WIRE.exec(id) ?? [];
  const seq = Number(digits);
  return epoch !== undefined && Number.isSafeInteger(seq) ? { epoch, seq } : undefined;
}
