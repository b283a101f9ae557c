// Reads the heap of workerd.
/** Reads the size of workerd's heap over the debugger's protocol. workerd does not tell it to the program that it runs. */
export class Inspector {
  readonly #port: number;

  constructor(port: number) {
    this.#port = port;
  }

  /** Returns the bytes of JavaScript, and of what workerd keeps for it. */
  async heapUsed(): Promise<number> {
    const sessions = (await (await fetch(`http://127.0.0.1:${this.#port}/json`)).json()) as {
      webSocketDebuggerUrl: string;
    }[];
    // Connected for this call only, because workerd keeps what it reports to a debugger.
    const socket = new WebSocket(sessions[0]?.webSocketDebuggerUrl ?? "");
    try {
      return await new Promise((resolve, reject) => {
        socket.onerror = () => reject(new Error("reading workerd's heap: the debugger's socket failed"));
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
