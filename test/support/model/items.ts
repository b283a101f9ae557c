// Parses a stream into the items that a simulated client reads.
import { createParser } from "eventsource-parser";
import type { GapData } from "../clients/connection.ts";

/** Something in a stream, as its client reads it. Only events and control events that move the client's position have an id. */
export type Item =
  | { readonly type: "event"; readonly id: string; readonly data: string }
  | ({ readonly type: "gap"; readonly id: string } & GapData)
  | { readonly type: "ready" | "position"; readonly id: string | undefined }
  | { readonly type: "end"; readonly id: undefined; readonly reason: string; readonly reconnect: boolean }
  | { readonly type: "channels" | "comment"; readonly id: undefined }
  | { readonly type: "ephemeral"; readonly id: undefined; readonly data: string };

/** Reads the bytes of one stream, in pieces of any size. */
export class ItemReader {
  #items: Item[] = [];
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  readonly #parser = createParser({
    onEvent: ({ event, id, data }) => {
      this.#items.push(itemOf(event, id, data));
    },
    onComment: () => {
      this.#items.push({ type: "comment", id: undefined });
    },
  });

  /** Returns the items that these bytes complete. */
  read(bytes: Uint8Array): Item[] {
    this.#parser.feed(this.#decoder.decode(bytes, { stream: true }));
    const items = this.#items;
    this.#items = [];
    return items;
  }
}

function itemOf(name: string | undefined, id: string | undefined, data: string): Item {
  switch (name) {
    case undefined:
      return { type: "event", id: id ?? "", data };
    case "fanwire-gap":
      return { type: "gap", id: id ?? "", ...(JSON.parse(data) as GapData) };
    case "fanwire-ready":
      return { type: "ready", id };
    case "fanwire-position":
      return { type: "position", id };
    case "ephemeral":
      return { type: "ephemeral", id: undefined, data };
    case "fanwire-channels":
      return { type: "channels", id: undefined };
    case "fanwire-end":
      return { type: "end", id: undefined, ...(JSON.parse(data) as { reason: string; reconnect: boolean }) };
    default:
      throw new Error(`Reading a stream: "${name}" is not an event of fanwire.`);
  }
}

/** Returns the name of a client's inbox, where the inboxes of several clients have to be distinguished. */
export const inboxName = (id: string): string => `fanwire-inbox:${id}`;
