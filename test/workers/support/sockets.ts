// Sockets between Workers and objects. All of them share one isolate here, so a test can watch, drop or delay every frame.

/** Runs `body` while `passes` sees every frame before it is sent. A frame for which it returns `false` is lost. */
export async function interceptFrames<T>(passes: (frame: unknown) => boolean, body: () => Promise<T>): Promise<T> {
  const { send } = WebSocket.prototype;
  WebSocket.prototype.send = function (this: WebSocket, frame: unknown) {
    if (passes(frame)) send.call(this, frame as string);
  };
  try {
    return await body();
  } finally {
    WebSocket.prototype.send = send;
  }
}

/** Returns the kind of an object's frame; `undefined` for a frame of a Worker. */
export const kindOf = (frame: unknown): number | undefined => (frame instanceof Uint8Array ? frame[1] : undefined);

/** Runs `body`. Frames to a Worker over a socket that it dials during `body` are late by `ms` milliseconds, afterwards as well. */
export async function withLatency<T>(ms: number, body: () => Promise<T>): Promise<T> {
  const { prototype } = WebSocket;
  const { addEventListener } = prototype;
  prototype.addEventListener = function (this: WebSocket, type: string, listener: (event: Event) => void) {
    addEventListener.call(this, type, (event: Event) => void setTimeout(() => listener(event), ms));
  } as typeof addEventListener;
  try {
    return await body();
  } finally {
    prototype.addEventListener = addEventListener;
  }
}
