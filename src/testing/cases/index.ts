// All cases about an engine by itself.
import type { EngineCase } from "../harness.ts";
import { orderCases } from "./order.ts";
import { outageCases } from "./outages.ts";
import { replayCases } from "./replay.ts";
import { retentionCases } from "./retention.ts";
import { sessionCases } from "./sessions.ts";

/** The requirements of every engine. */
export const engineCases: readonly EngineCase[] = [
  ...orderCases,
  ...replayCases,
  ...retentionCases,
  ...sessionCases,
  ...outageCases,
];
