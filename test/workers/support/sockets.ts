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

/** Runs `body` with `ms` milliseconds between two pings of a Worker, in place of 10,000. */
export async function withPingInterval<T>(ms: number, body: () => Promise<T>): Promise<T> {
  const { setInterval } = globalThis;
  globalThis.setInterval = ((task: () => void, interval: number) =>
    setInterval(task, interval === 10_000 ? ms : interval)) as typeof setInterval;
  try {
    return await body();
  } finally {
    globalThis.setInterval = setInterval;
  }
}

/** Runs `body`. `delayOf` returns the delay of each `setTimeout` that is called in the meantime, in milliseconds. */
export async function withTimeouts<T>(delayOf: (ms: number) => number, body: () => Promise<T>): Promise<T> {
  const { setTimeout } = globalThis;
  globalThis.setTimeout = ((task: () => void, ms = 0) => setTimeout(task, delayOf(ms))) as typeof setTimeout;
  try {
    return await body();
  } finally {
    globalThis.setTimeout = setTimeout;
  }
}

/** Runs `body` while `Math.random()` returns `value`, so that a test can tell the delays. */
export async function withRandom<T>(value: number, body: () => Promise<T>): Promise<T> {
  const { random } = Math;
  Math.random = () => value;
  try {
    return await body();
  } finally {
    Math.random = random;
  }
}

/** Whether a Worker's frame registers a client. */
export const isHello = (frame: unknown): boolean => typeof frame === "string" && frame.includes('"hello"');
