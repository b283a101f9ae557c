// Connects any class with the interface of EventSource. Such a client reconnects by itself, with its last id.
import { type Connect, EVENT_TYPES } from "../client.ts";

/** The part of EventSource that all implementations have. */
interface EventSourceLike {
  readonly readyState: number;
  onerror: unknown;
  addEventListener(type: string, listener: (event: { data: string; lastEventId: string }) => void): void;
  close(): void;
}

const CLOSED = 2;

export const connectWith =
  (EventSourceClass: new (url: string) => EventSourceLike): Connect =>
  (url, onEvent, onStopped) => {
    const source = new EventSourceClass(url);
    for (const type of EVENT_TYPES) {
      source.addEventListener(type, ({ data, lastEventId }) => onEvent({ type, id: lastEventId, data }));
    }
    source.onerror = () => {
      if (source.readyState === CLOSED) onStopped();
    };
    return () => source.close();
  };
