// `event-source-plus`. By itself it ignores `retry` and reconnects 2 ms after the end of a stream. With the strategy "on-error" the user
// reconnects, after the time that the server asked for.
import { EventSourcePlus } from "event-source-plus";
import type { Connect } from "../client.ts";

export const connect: Connect = (url, onEvent, onStopped) => {
  let retryMs = 2_000;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const controller = new EventSourcePlus(url, { retryStrategy: "on-error" }).listen({
    onResponse({ response }) {
      if (response.status === 204) controller.abort();
    },
    onMessage({ event = "message", id, data, retry = retryMs }) {
      retryMs = retry;
      onEvent({ type: event, id, data });
    },
  });
  controller.onAbort(({ type }) => {
    if (type === "end-of-stream") timer = setTimeout(() => controller.reconnect(), retryMs);
    else onStopped();
  });
  return () => {
    clearTimeout(timer);
    controller.abort();
  };
};
