// Opens a WebSocket to an object and registers a client there.
import { BrokerError } from "../base/errors.ts";
import { after } from "../base/runtime.ts";
import type { Socket } from "./cloudflare.ts";
import {
  CLOSE_NORMAL,
  CLOSE_PROTOCOL_ERROR,
  errorOf,
  type Frame,
  type Hello,
  kinds,
  type Refusal,
  readFrame,
  readJsonFrame,
  type Welcome,
  writeWorkerFrame,
} from "./protocol.ts";

/** The time in milliseconds for the object to accept the socket, and again to register the client. */
const DIAL_TIMEOUT_MS = 10_000;

/** Closes a socket that may be closed already. */
export function closeSocket(socket: Socket, code: number, reason: string): void {
  try {
    socket.close(code, reason);
  } catch {
    // The socket is closed already.
  }
}

/** Waits for a socket. Closes a socket that comes too late. @throws {@link BrokerError} `engine-down` */
async function withTimeout(ms: number, dialing: Promise<Socket>): Promise<Socket> {
  let isLate = false;
  const late = new Promise<never>((_, reject) => {
    const cancel = after(ms, () => {
      isLate = true;
      reject(new BrokerError("engine-down", `Connection refused: the object did not answer within ${ms} ms.`));
    });
    const settled = (): void => cancel();
    dialing.then(settled, settled);
  });
  dialing.then(
    (socket) => {
      if (!isLate) return;
      socket.accept();
      closeSocket(socket, CLOSE_NORMAL, "closing");
    },
    () => undefined,
  );
  return Promise.race([dialing, late]);
}

/** A socket on which the client is registered. */
export interface DialedObject {
  readonly socket: Socket;
  readonly welcome: Welcome;
  /** Messages that arrived after the welcome. */
  readonly rest: readonly unknown[];
}

/** Dials an object and registers a client. Returns `undefined` if the client id is barred. @throws {@link BrokerError} */
export async function dialObject(dial: () => Promise<Socket>, hello: Hello): Promise<DialedObject | undefined> {
  const socket = await withTimeout(DIAL_TIMEOUT_MS, dial());
  let received: unknown[] | undefined = [];
  const first = new Promise<Frame>((resolve, reject) => {
    const refuse = (fault: string) =>
      reject(new BrokerError("engine-down", `Connection refused: the object ${fault}.`));
    const cancel = after(DIAL_TIMEOUT_MS, () => refuse(`did not register the client within ${DIAL_TIMEOUT_MS} ms`));
    const onGone = (): void => {
      cancel();
      refuse("closed the socket");
    };
    socket.addEventListener("close", onGone);
    socket.addEventListener("error", onGone);
    socket.addEventListener("message", ({ data }) => {
      if (!received || received.push(data) > 1) return;
      cancel();
      const frame = readFrame(data);
      if (frame) resolve(frame);
      else refuse("runs another version of fanwire");
    });
  });
  socket.accept();
  socket.send(writeWorkerFrame(hello));
  let frame: Frame;
  try {
    frame = await first;
  } catch (error) {
    closeSocket(socket, CLOSE_PROTOCOL_ERROR, "no welcome");
    throw error;
  }
  if (frame.kind === kinds.refusal) {
    closeSocket(socket, CLOSE_NORMAL, "closing");
    const refusal = readJsonFrame<Refusal>(frame);
    if (refusal.code === undefined) return undefined;
    throw errorOf(refusal);
  }
  const rest = received.slice(1);
  // From here on the caller listens.
  received = undefined;
  return { socket, welcome: readJsonFrame<Welcome>(frame), rest };
}
