// The EventSource of the runtime: Chromium's or Deno's.
import type { Connect } from "../client.ts";
import { connectWith } from "./event-source-api.ts";

export const connect: Connect = connectWith(EventSource as unknown as Parameters<typeof connectWith>[0]);
