// The npm package `eventsource`: EventSource for Node, over fetch.
import { EventSource } from "eventsource";
import type { Connect } from "../client.ts";
import { connectWith } from "./event-source-api.ts";

export const connect: Connect = connectWith(EventSource as unknown as Parameters<typeof connectWith>[0]);
