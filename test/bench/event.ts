// The data of published events: a mark, a number and a time.
/** The first character of every published event. It occurs nowhere else on the wire, and is what the client counts. */
export const MARK = "~";

const SEQ_DIGITS = 9;
const TIME_DIGITS = 16;
const SEQ_START = MARK.length;
const TIME_START = SEQ_START + SEQ_DIGITS + 1;
/** Bytes from the mark on that {@link readEvent} needs. */
export const EVENT_HEAD = TIME_START + TIME_DIGITS;

/** Returns microseconds of the machine's monotonic clock, which all processes and threads share. */
export const clock = (): number => Number(process.hrtime.bigint() / 1000n);

/** Formats the data of an event: `length` ASCII characters. `seq` is its number, `time` when it was published. */
export const formatEvent = (seq: number, time: number, length: number): string =>
  `${MARK}${digits(seq, SEQ_DIGITS)},${digits(time, TIME_DIGITS)},`.padEnd(length, "x");

/** Reads the number and time from the bytes at a mark. */
export function readEvent(bytes: Uint8Array, at: number): { seq: number; time: number } {
  return {
    seq: number(bytes, at + SEQ_START, SEQ_DIGITS),
    time: number(bytes, at + TIME_START, TIME_DIGITS),
  };
}

const digits = (value: number, length: number): string => String(value).padStart(length, "0");

function number(bytes: Uint8Array, start: number, length: number): number {
  let value = 0;
  for (let index = start; index < start + length; index++) value = value * 10 + (bytes[index] as number) - 48;
  return value;
}
