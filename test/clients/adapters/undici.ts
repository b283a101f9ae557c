// EventSource of undici, which is also Node's own behind `--experimental-eventsource`.
import { EventSource } from "undici";
import type { Connect } from "../client.ts";
import { connectWith } from "./event-source-api.ts";

export const connect: Connect = connectWith(EventSource as unknown as Parameters<typeof connectWith>[0]);
