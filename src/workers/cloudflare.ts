// The parts of Cloudflare's interfaces that fanwire uses, as structural types: an application need not install Cloudflare's own.

/** A row of a query's result, by column name. */
export type Row = Readonly<Record<string, unknown>>;

/** The storage of a Durable Object that has SQLite. */
export interface ObjectStorage {
  readonly sql: { exec(query: string, ...bindings: unknown[]): Iterable<Row> };
  /** Undoes the changes of `body` if it throws. */
  transactionSync<Result>(body: () => Result): Result;
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

/** A response that accepts an upgrade. */
export interface UpgradeResponse {
  readonly webSocket?: Socket | null;
}
