// The typed value of an event's data.
import { ConnectError } from "./connect-error.ts";
import type { StandardSchema } from "./events.ts";

/** Returns the parsed data if it is JSON, and else the text. */
export function parseData(data: string): unknown {
  try {
    return JSON.parse(data);
  } catch {
    return data;
  }
}

/** A value, or why there is none. */
export interface Checked {
  readonly value?: unknown;
  readonly error?: ConnectError;
}

/** Checks data by a schema: first what it is as JSON, and then the text itself, because a text such as "42" is JSON too. */
export async function checkData(
  event: string,
  data: string,
  { "~standard": { validate } }: StandardSchema,
): Promise<Checked> {
  const parsed = parseData(data);
  const result = await validate(parsed);
  if (!result.issues) return result;
  const second = parsed === data ? result : await validate(data);
  if (!second.issues) return second;
  const { issues } = result;
  const message = `Event left out: its data does not fit the schema of "${event}": ${issues[0]?.message}`;
  return { error: new ConnectError("bad-event-data", message, undefined, issues) };
}
