import { expect, inject, test } from "vitest";
import { runtime, runtimeVersion } from "../../support/runtime.ts";
import { withDurableObject } from "../../support/workerd.ts";

test("runtime: the tests run on the runtime of their part", async () => {
  const part = inject("part");
  const where = `${runtime} ${await runtimeVersion()}`;
  console.info(part === runtime ? `conformance on ${where}` : `${part} on ${where}`);
  expect(runtime).toBe(part === "durable" ? "workerd" : part);
});

test(
  "inside(): gives a Durable Object on workerd and nothing elsewhere",
  withDurableObject(async (durableObject) => {
    if (runtime !== "workerd") return expect(durableObject).toBeUndefined();
    expect(durableObject).toMatchObject({ storage: { sql: expect.anything() } });
  }),
);
