/** Asks workerd by its debugger's protocol what its heap is, which it tells no program that runs in it. */
export class Inspector {
  readonly #port: number;

  constructor(port: number) {
    this.#port = port;
  }

  /** Bytes: of JavaScript, and of what workerd itself keeps for it. */
  async heapUsed(): Promise<number> {
    const sessions = (await (await fetch(`http://127.0.0.1:${this.#port}/json`)).json()) as {
      webSocketDebuggerUrl: string;
    }[];
    // Connected for no longer than this takes: what a debugger is told of is kept for it.
    const socket = new WebSocket(sessions[0]?.webSocketDebuggerUrl ?? "");
    try {
      return await new Promise((resolve, reject) => {
        socket.onerror = () => reject(new Error("asking workerd for its heap: the debugger's socket failed"));
        socket.onopen = () => socket.send(JSON.stringify({ id: 1, method: "Runtime.getHeapUsage", params: {} }));
        socket.onmessage = ({ data }) => {
          const { result } = JSON.parse(String(data)) as { result: { usedSize: number; embedderHeapUsedSize: number } };
          resolve(result.usedSize + result.embedderHeapUsedSize);
        };
      });
    } finally {
      socket.close();
    }
  }
}
