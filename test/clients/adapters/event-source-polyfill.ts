// Yaffle's polyfill. It sends its last id as the parameter `lastEventId`, which fanwire reads, and waits 1 s or more before it reconnects.
import { EventSourcePolyfill } from "event-source-polyfill";
import type { Connect } from "../client.ts";
import { connectWith } from "./event-source-api.ts";

export const connect: Connect = connectWith(EventSourcePolyfill);
