// Faults in typed events: what schemas are asked, and what becomes of their answers.
import type { Mutant } from "./mutants.ts";

export const typedEventMutants: readonly Mutant[] = [
  {
    name: "schema-output-not-sent",
    file: "event/event-schemas.ts",
    tests: "broker/typed-events",
    find: "if (!found.issues) return found.value;",
    replace: "if (!found.issues) return data;",
    harm: "Fields that the schema takes away, such as a password, are sent to every page.",
  },
  {
    name: "type-without-schema-accepted",
    file: "event/event-schemas.ts",
    tests: "broker/typed-events",
    find: "const validate = schemas.get(name);",
    replace: "const validate = schemas.get(name) ?? ((value: unknown) => ({ value }));",
    harm: "A misspelled type is published, and no page handles it.",
  },
  {
    name: "schema-promise-taken-for-a-result",
    file: "event/event-schemas.ts",
    tests: "broker/typed-events",
    find: 'if (!("then" in result)) {',
    replace: 'if (!("then" in result) || true) {',
    harm: "With an asynchronous schema every event is refused with an error that does not say why, and rejections end the process.",
  },
  {
    name: "typed-text-not-serialized",
    file: "event/event.ts",
    tests: "broker/typed-events",
    find: "? serializeWith(serialize, events(event, data, isBody))",
    replace:
      "? ((output) => (isText(output) ? toText(output) : serializeWith(serialize, output)))(events(event, data, isBody))",
    harm: "A page whose type says that a value is a text receives the number 42.",
  },
  {
    name: "body-not-read-as-json",
    file: "http/handler.ts",
    tests: "http/typed-publish",
    find: "ephemeral, isBody: true }",
    replace: "ephemeral, isBody: false }",
    harm: "No program can publish a typed event over HTTP, unless its data is a text.",
  },
  {
    name: "issues-lost-between-object-and-worker",
    file: "workers/protocol.ts",
    suite: "workers",
    tests: "typed-events",
    find: "new BrokerError(code, message, { headers, issues })",
    replace: "new BrokerError(code, message, { headers })",
    harm: "On Workers a publisher is not told which field of its data is wrong.",
  },
];
