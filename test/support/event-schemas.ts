// The same events in three libraries, and schemas by hand, which do what a library would not.
import { type } from "arktype";
import * as v from "valibot";
import { z } from "zod";
import type { EventSchemas, StandardSchema } from "../../src/index.ts";

/** A price has a default, a trimmed text and a transformation, so that what goes in is not what comes out. */
export const libraries: Readonly<Record<string, EventSchemas>> = {
  zod: {
    price: z.object({ name: z.string().trim(), amount: z.number(), unit: z.string().default("EUR") }),
    length: z.string().transform((text) => text.length),
    message: z.string(),
    count: z.number(),
  },
  valibot: {
    price: v.object({ name: v.pipe(v.string(), v.trim()), amount: v.number(), unit: v.optional(v.string(), "EUR") }),
    length: v.pipe(
      v.string(),
      v.transform((text) => text.length),
    ),
    message: v.string(),
    count: v.number(),
  },
  arktype: {
    price: type({ name: "string.trim", amount: "number", unit: "string = 'EUR'" }).onUndeclaredKey("delete"),
    length: type("string").pipe((text) => text.length),
    message: type("string"),
    count: type("number"),
  },
};

/** Returns a schema whose answer is that of `validate`. */
export const schemaOf = (validate: (value: unknown) => unknown): StandardSchema =>
  ({ "~standard": { version: 1, vendor: "test", validate } }) as StandardSchema;

/** Whatever a schema may do wrong when it is asked. Each is refused, with this name. */
export const hostile: Readonly<Record<string, readonly [schema: StandardSchema, error: string]>> = {
  throws: [schemaOf(() => raise()), "Error"],
  "throws a string": [
    schemaOf(() => {
      throw "internal text";
    }),
    "Error",
  ],
  "returns nothing": [schemaOf(() => undefined), "Error"],
  "returns null": [schemaOf(() => null), "Error"],
  "returns true": [schemaOf(() => true), "Error"],
  "issues that throw": [
    schemaOf(() => ({
      get issues() {
        return raise();
      },
    })),
    "Error",
  ],
  "a value that throws": [
    schemaOf(() => ({
      get value() {
        return raise();
      },
    })),
    "Error",
  ],
  "an issue that throws": [
    schemaOf(() => ({
      issues: [
        {
          get message() {
            return raise();
          },
        },
      ],
    })),
    "Error",
  ],
  "issues that are no list": [schemaOf(() => ({ issues: 1 })), "Error"],
  "issues that are null": [schemaOf(() => ({ issues: null, value: 1 })), "Error"],
  "an empty list of issues": [schemaOf(() => ({ issues: [], value: 1 })), "bad-event-data"],
  "no value": [schemaOf(() => ({})), "TypeError"],
  "a promise": [schemaOf(async (value) => ({ value })), "TypeError"],
  "a promise that rejects": [schemaOf(() => Promise.reject(new Error("internal text"))), "TypeError"],
  "a thenable that throws": [
    schemaOf(() => ({
      // biome-ignore lint/suspicious/noThenProperty: this is what is tested
      get then() {
        return raise();
      },
    })),
    "TypeError",
  ],
};

function raise(): never {
  throw new Error("internal text");
}
