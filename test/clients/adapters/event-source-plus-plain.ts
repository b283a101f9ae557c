// `event-source-plus` with its default strategy, "always".
import { EventSourcePlus } from "event-source-plus";
import type { Connect } from "../client.ts";

export const connect: Connect = (url, onEvent, onStopped) => {
  const controller = new EventSourcePlus(url).listen({
    onMessage: ({ event = "message", id, data }) => onEvent({ type: event, id, data }),
  });
  controller.onAbort(onStopped);
  return () => controller.abort();
};
