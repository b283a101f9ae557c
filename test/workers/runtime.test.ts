import { expect, test } from "vitest";
import { runtime, runtimeVersion } from "../support/runtime.ts";

test("runtime: these tests run on workerd", async () => {
  console.info(`workers on ${runtime} ${await runtimeVersion()}`);
  expect(runtime).toBe("workerd");
});
