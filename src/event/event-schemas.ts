// The option `events`: checks the data of each event by the schema of its type. What the schema returns takes the place of the data.
import { BrokerError, type EventIssue, quote } from "../base/errors.ts";
import { isPlain } from "../base/validate.ts";
import type { StandardSchema } from "../client/events.ts";
import { parseData } from "../client/values.ts";
import { type CheckData, checkEventType, isText, toText } from "./event.ts";

// Bounds of the issues in an answer to a publisher: about 6 kB.
const MAX_ISSUES = 10;
const MAX_MESSAGE_LENGTH = 200;
const MAX_PATH = 10;
const MAX_NAME_LENGTH = 40;

type Validate = (value: unknown) => ReturnType<StandardSchema["~standard"]["validate"]>;
type Found = { readonly value: unknown; readonly issues?: undefined } | { readonly issues: readonly EventIssue[] };

/**
 * Reads the schemas of a broker, by event type. `where` names the call in messages.
 *
 * @throws `TypeError` for what is not a plain object of schemas, and for types that no event may have
 */
export function checkBySchemas(where: string, events: unknown): CheckData {
  if (!isPlain(events))
    throw new TypeError(`${where} refused: events must be a plain object of schemas, such as { price: schema }.`);
  const schemas = new Map<string, Validate>();
  for (const name of Object.keys(events)) {
    try {
      checkEventType(name);
      // Read once: a getter must not return another schema later.
      const standard = (events[name] as StandardSchema)["~standard"];
      if (!name || standard.version !== 1) throw new TypeError("An event without a type is a message.");
      schemas.set(name, standard.validate.bind(standard));
    } catch (cause) {
      throw new TypeError(
        `${where} refused: events has ${quote(name)}, which is not a type of events with a schema of Standard Schema 1.`,
        { cause },
      );
    }
  }
  return (event, data, isBody) => {
    const name = event || "message";
    const validate = schemas.get(name);
    if (!validate)
      throw new BrokerError(
        "bad-event-type",
        `Event refused: there is no type ${quote(name)} in events; correct it, or add its schema.`,
      );
    // A body is text. It means what it says as JSON if that fits, and else the text itself, as in the page's client.
    const text = isBody && isText(data) ? toText(data) : undefined;
    const parsed = text === undefined ? data : parseData(text);
    const found = check(name, validate, parsed);
    if (!found.issues) return found.value;
    const second = text === undefined || parsed === text ? found : check(name, validate, text);
    if (!second.issues) return second.value;
    const { issues } = found;
    throw new BrokerError(
      "bad-event-data",
      `Event refused: its data does not fit the schema of ${quote(name)}: ${issues[0]?.message ?? "it gives no reason"}`,
      { issues },
    );
  };
}

/** Asks a schema. @throws `TypeError` for a promise, `Error` for a schema that throws or returns something else */
function check(name: string, validate: Validate, data: unknown): Found {
  let result: ReturnType<Validate>;
  try {
    result = validate(data);
    if (!("then" in result)) {
      const { issues } = result;
      return issues === undefined ? { value: result.value } : { issues: bounded(issues) };
    }
  } catch (cause) {
    throw new Error(`Event not published: the schema of ${quote(name)} has thrown an error (see cause).`, { cause });
  }
  // Its outcome is of no use, and must not count as an unhandled rejection.
  void Promise.resolve(result).catch(() => undefined);
  throw new TypeError(
    `Event refused: the schema of ${quote(name)} returned a promise; use one without asynchronous checks.`,
  );
}

/** Returns a copy within the bounds. */
function bounded(issues: Iterable<{ readonly message: unknown; readonly path?: Iterable<unknown> | undefined }>) {
  const list: EventIssue[] = [];
  for (const { message, path = [] } of issues) {
    const names: (string | number)[] = [];
    for (const part of path) {
      const key = typeof part === "object" && part ? (part as { key: unknown }).key : part;
      names.push(typeof key === "number" ? key : String(key).slice(0, MAX_NAME_LENGTH));
      if (names.length === MAX_PATH) break;
    }
    list.push({ message: String(message).slice(0, MAX_MESSAGE_LENGTH), path: names });
    if (list.length === MAX_ISSUES) break;
  }
  return list;
}
