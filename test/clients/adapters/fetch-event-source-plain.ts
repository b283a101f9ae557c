// `@microsoft/fetch-event-source` without `onclose`.
import { fetchEventSource } from "@microsoft/fetch-event-source";
import type { Connect } from "../client.ts";

export const connect: Connect = (url, onEvent, onStopped) => {
  const abort = new AbortController();
  const finished = fetchEventSource(url, {
    signal: abort.signal,
    onmessage: ({ event, id, data }) => onEvent({ type: event || "message", id, data }),
  });
  finished.then(onStopped, onStopped);
  return () => abort.abort();
};
