// The npm package `eventsource-client`. It shows events of every type, reconnects by itself, and stops at 204.
import { createEventSource } from "eventsource-client";
import type { Connect } from "../client.ts";

export const connect: Connect = (url, onEvent, onStopped) => {
  const source = createEventSource({
    url,
    onMessage: ({ event = "message", id, data }) => onEvent({ type: event, id, data }),
    // The client closes right after this call if it stops.
    onDisconnect: () => queueMicrotask(() => source.readyState === "closed" && onStopped()),
  });
  return () => source.close();
};
