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

/** How long the object may take to answer, and then to let a client in, in milliseconds. */
const LONGEST_WELCOME = 10_000;

/** Closes a socket that may be closed already. */
export function closeSocket(socket: Socket, code: number, reason: string): void {
  try {
    socket.close(code, reason);
  } catch {
    // It is closed.
  }
}

/** A socket that is dialled; one that comes too late is closed. @throws {@link BrokerError} `engine-down` */
async function within(ms: number, dialled: Promise<Socket>): Promise<Socket> {
  let isLate = false;
  const late = new Promise<never>((_, reject) => {
    const cancel = after(ms, () => {
      isLate = true;
      reject(new BrokerError("engine-down", "Connection refused: the object does not answer."));
    });
    const settled = (): void => cancel();
    dialled.then(settled, settled);
  });
  dialled.then(
    (socket) => {
      if (!isLate) return;
      socket.accept();
      closeSocket(socket, CLOSE_NORMAL, "closing");
    },
    () => undefined,
  );
  return Promise.race([dialled, late]);
}

/** A socket by which the client was let in, and what came by it since. */
export interface DialedObject {
  readonly socket: Socket;
  readonly welcome: Welcome;
  readonly rest: readonly unknown[];
}

/** Dials and says hello. `undefined` if the client is turned away. @throws {@link BrokerError} */
export async function dialObject(dial: () => Promise<Socket>, hello: Hello): Promise<DialedObject | undefined> {
  const socket = await within(LONGEST_WELCOME, dial());
  let received: unknown[] | undefined = [];
  const first = new Promise<Frame>((resolve, reject) => {
    const refuse = (why: string) => reject(new BrokerError("engine-down", `Connection refused: the object ${why}.`));
    const cancel = after(LONGEST_WELCOME, () => refuse("does not answer"));
    const gone = (): void => {
      cancel();
      refuse("is gone");
    };
    socket.addEventListener("close", gone);
    socket.addEventListener("error", gone);
    socket.addEventListener("message", ({ data }) => {
      if (!received || received.push(data) > 1) return;
      cancel();
      const frame = readFrame(data);
      if (frame) resolve(frame);
      else refuse("is of another version");
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
  // From here on somebody else listens.
  received = undefined;
  return { socket, welcome: readJsonFrame<Welcome>(frame), rest };
}
