// htmx 2 with its extension `htmx-ext-sse`: the browser's EventSource, and a swap for each event whose type is named in `sse-swap`.
import { type Connect, EVENT_TYPES } from "../client.ts";

declare const htmx: { process(element: Element): void };

export const connect: Connect = (url, onEvent) => {
  const element = document.createElement("div");
  element.setAttribute("hx-ext", "sse");
  element.setAttribute("sse-connect", url);
  element.setAttribute("sse-swap", EVENT_TYPES.join());
  element.addEventListener("htmx:sseMessage", (event) => {
    const { type, lastEventId } = (event as CustomEvent<MessageEvent<string>>).detail;
    onEvent({ type, id: lastEventId, data: element.textContent });
  });
  document.body.append(element);
  htmx.process(element);
  return () => element.remove();
};
