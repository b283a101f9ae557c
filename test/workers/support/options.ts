// Options of the objects under test, by the id of the object.
import type { ObjectOptions } from "../../../src/workers/index.ts";

interface Id {
  toString(): string;
}

/** Options by the id of their object. Tests and objects share one isolate, so functions can be options as well. */
const options = new Map<string, ObjectOptions>();

export const setOptions = (id: Id, objectOptions: ObjectOptions): unknown => options.set(id.toString(), objectOptions);
const instances = new Map<string, number>();

/** Returns the options of an object, and counts its instances. Each instance calls this once, when it starts. */
export function optionsOf(id: Id): ObjectOptions {
  instances.set(id.toString(), instancesOf(id) + 1);
  return options.get(id.toString()) ?? {};
}

/** Returns the number of instances that an object has had. */
export const instancesOf = (id: Id): number => instances.get(id.toString()) ?? 0;
