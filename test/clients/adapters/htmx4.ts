// htmx 4 with its extension `hx-sse`: a parser of its own over fetch. Events without a type are swapped into the element; an event with a type
// becomes a DOM event of that name.
import type { Connect } from "../client.ts";

declare const htmx: { process(element: Element): void };

interface SseMessage {
  readonly message: { readonly event: string; readonly id: string; readonly data: string };
}

export const connect: Connect = (url, onEvent) => {
  const element = document.createElement("div");
  element.setAttribute("hx-sse:connect", url);
  element.addEventListener("htmx:sse:after:message", (event) => {
    const { event: type, id, data } = (event as CustomEvent<SseMessage>).detail.message;
    onEvent({ type: type || "message", id, data: type ? data : element.textContent });
  });
  document.body.append(element);
  htmx.process(element);
  return () => element.remove();
};
