// `@microsoft/fetch-event-source`, with the handlers of its README: a clean end is final unless `onclose` throws, and every error leads to a
// retry unless `onerror` throws.
import { fetchEventSource } from "@microsoft/fetch-event-source";
import type { Connect } from "../client.ts";

class FatalError extends Error {}

export const connect: Connect = (url, onEvent, onStopped) => {
  const abort = new AbortController();
  const finished = fetchEventSource(url, {
    signal: abort.signal,
    openWhenHidden: true,
    async onopen({ status }) {
      if (status !== 200) throw new FatalError(`status ${status}`);
    },
    onmessage: ({ event, id, data }) => onEvent({ type: event || "message", id, data }),
    onclose() {
      throw new Error("The stream has ended: reconnect.");
    },
    onerror(error) {
      if (error instanceof FatalError) throw error;
    },
  });
  finished.then(onStopped, onStopped);
  return () => abort.abort();
};
