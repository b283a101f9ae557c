// Sockets between Workers and objects. All of them are in one isolate here, so that what they send can be looked at, lost or held up.

/** Runs `body` while everything that is sent is shown to `passes`; what it says `false` to is lost on its way. */
export async function passing<T>(passes: (frame: unknown) => boolean, body: () => Promise<T>): Promise<T> {
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

/** The kind of a frame of an object's; `undefined` for what a Worker says. */
export const kindOf = (frame: unknown): number | undefined => (frame instanceof Uint8Array ? frame[1] : undefined);

/** Runs `body`; what comes to a Worker by a socket that it dials meanwhile comes so many milliseconds later, also afterwards. */
export async function late<T>(ms: number, body: () => Promise<T>): Promise<T> {
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
