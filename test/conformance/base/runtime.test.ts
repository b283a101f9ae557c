import { expect, inject, test } from "vitest";
import { runtime, version } from "../../support/runtime.ts";
import { inside } from "../../support/workerd.ts";

test("the run is on the runtime it was told to be on", async () => {
  const part = inject("part");
  const where = `${runtime} ${await version()}`;
  console.info(part === runtime ? `conformance on ${where}` : `${part} on ${where}`);
  expect(runtime).toBe(part === "durable" ? "workerd" : part);
});

test(
  "inside() gives a Durable Object on workerd and nothing elsewhere",
  inside(async (durableObject) => {
    if (runtime !== "workerd") return expect(durableObject).toBeUndefined();
    expect(durableObject).toMatchObject({ storage: { sql: expect.anything() } });
  }),
);
