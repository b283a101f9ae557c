// Datastar: a copy of fetch-event-source, behind the action `@get`. It shows only events whose type begins with "datastar-", and no ids.
// After 10 failures in the life of a page it gives up, unless `retryMaxCount` says otherwise.
import "@starfederation/datastar/bundles/datastar";
import type { Connect } from "../client.ts";

interface SseDetail {
  readonly type: string;
  readonly argsRaw: { readonly signals?: string };
}

export const connect: Connect = (url, onEvent, onStopped) => {
  const element = document.createElement("div");
  document.addEventListener("datastar-sse", (event) => {
    const { type, argsRaw } = (event as CustomEvent<SseDetail>).detail;
    if (argsRaw.signals !== undefined) onEvent({ type, data: JSON.parse(argsRaw.signals).text });
    else if (type === "finished") onStopped();
  });
  element.dataset.onLoad = `@get(${JSON.stringify(url)}, { retryMaxCount: Infinity, openWhenHidden: true })`;
  document.body.append(element);
  return () => element.remove();
};
