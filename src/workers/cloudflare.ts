// The parts of Cloudflare's interfaces that are used here, by their shape: no types of theirs have to be installed.

/** A row, by column. */
export type Row = Readonly<Record<string, unknown>>;

/** The storage of a Durable Object that has SQLite. */
export interface ObjectStorage {
  readonly sql: { exec(query: string, ...bindings: unknown[]): Iterable<Row> };
  list(options: { readonly limit: number }): Promise<ReadonlyMap<string, unknown>>;
  getAlarm(): Promise<number | null>;
  setAlarm(time: number): Promise<void>;
  deleteAlarm(): Promise<void>;
  deleteAll(): Promise<void>;
}

/** One end of a WebSocket. */
export interface Socket {
  accept(): void;
  send(message: string | Uint8Array): void;
  close(code?: number, reason?: string): void;
  serializeAttachment(value: unknown): void;
  deserializeAttachment(): unknown;
  addEventListener(type: "message", listener: (event: { readonly data: unknown }) => void): void;
  addEventListener(type: "close" | "error", listener: () => void): void;
  binaryType?: string;
}

/** The `ctx` of a Durable Object. */
export interface ObjectContext {
  readonly storage: ObjectStorage;
  acceptWebSocket(socket: Socket): void;
  getWebSockets(): Socket[];
  setWebSocketAutoResponse(pair?: object): void;
}

/** What a response has that is the answer to an upgrade. */
export interface UpgradeResponse {
  readonly webSocket?: Socket | null;
}
