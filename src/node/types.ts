// The parts of Node's HTTP classes that the adapter uses, as structural types: nothing is imported from Node. They fit `node:http`,
// `node:https`, `node:http2` with its compatibility API, and the subclasses of frameworks.

/** A request: `http.IncomingMessage` or `http2.Http2ServerRequest`. */
export interface NodeIncoming {
  readonly method?: string | undefined;
  readonly url?: string | undefined;
  /** The URL before a framework removed the path of a mount: Express, Connect, Fastify. */
  readonly originalUrl?: string | undefined;
  readonly rawHeaders: readonly string[];
  readonly headers: { readonly [name: string]: string | readonly string[] | undefined };
  readonly socket: unknown;
  /** The result of a body parser. */
  readonly body?: unknown;
  /** Whether somebody reads or has read the body. */
  readonly readableDidRead?: boolean;
  on(event: string, listener: (argument: unknown) => void): unknown;
  pause(): unknown;
  resume(): unknown;
}

/** A response: `http.ServerResponse` or `http2.Http2ServerResponse`. */
export interface NodeOutgoing {
  statusCode: number;
  readonly headersSent: boolean;
  readonly writableEnded: boolean;
  readonly destroyed: boolean;
  readonly socket: unknown;
  /** Whether the body is sent in chunks (RFC 9112, section 7.1). Known once the head was sent. */
  readonly chunkedEncoding?: boolean;
  shouldKeepAlive?: boolean;
  getHeader(name: string): number | string | readonly string[] | undefined;
  setHeader(name: string, value: string | readonly string[]): unknown;
  getHeaderNames(): readonly string[];
  writeHead(status: number, fields: string[]): unknown;
  flushHeaders?(): void;
  write(chunk: Uint8Array): boolean;
  end(): unknown;
  end(text: string): unknown;
  destroy(): unknown;
  on(event: string, listener: (argument: unknown) => void): unknown;
  once(event: string, listener: (argument: unknown) => void): unknown;
  off(event: string, listener: (argument: unknown) => void): unknown;
}

/** The socket of a response on HTTP/1. */
export interface NodeSocket {
  readonly server?: NodeServer | undefined;
  write(chunk: Uint8Array): boolean;
  once(event: "drain", listener: () => void): unknown;
  cork(): void;
  uncork(): void;
}

/** A server that accepts sockets. */
export interface NodeServer {
  readonly listening: boolean;
}

/** Calls the next middleware, with an error or without. */
export type NodeNext = (error?: unknown) => void;
