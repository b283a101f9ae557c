import { expect, test } from "vitest";
import { runtime, version } from "../support/runtime.ts";

test("the run is on workerd", async () => {
  console.info(`workers on ${runtime} ${await version()}`);
  expect(runtime).toBe("workerd");
});
