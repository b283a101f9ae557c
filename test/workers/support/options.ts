import type { ObjectOptions } from "../../../src/workers/index.ts";

interface Id {
  toString(): string;
}

/** Options by the id of their object. Tests and objects are in one isolate, so that functions can be options as well. */
const options = new Map<string, ObjectOptions>();

export const setOptions = (id: Id, given: ObjectOptions): unknown => options.set(id.toString(), given);
const instances = new Map<string, number>();

/** Called by each instance as it begins. */
export function optionsOf(id: Id): ObjectOptions {
  instances.set(id.toString(), instancesOf(id) + 1);
  return options.get(id.toString()) ?? {};
}

/** How many instances an object has had. */
export const instancesOf = (id: Id): number => instances.get(id.toString()) ?? 0;
