// One life of a process whose broker is on the SQLite engine: `node restart.ts FILE first|next|locked [ID…]`. Prints what it saw as JSON.
import { type Broker, createBroker } from "fanwire";
import type { BrokerError } from "fanwire/engine";
import { sqliteEngine } from "./sqlite-engine.ts";

const [, , file = "", life, one = "", three = ""] = process.argv;
const broker = createBroker({ engine: sqliteEngine(file, { retention: { events: 5 } }) });
const print = (seen: object): void => console.log(JSON.stringify(seen));

/** Returns the stream of a client that resumes after an id, up to the event "last". */
async function resume(target: Broker, channel: string, lastEventId: string): Promise<string> {
  const headers = { accept: "text/event-stream", "last-event-id": lastEventId };
  const response = await target.clientHandler(new Request(`https://fanwire.test/?channel=${channel}`, { headers }));
  let text = "";
  for await (const part of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
    text += part;
    if (text.includes("data: last\n")) break;
  }
  return text;
}

switch (life) {
  case "first": {
    const ids = [];
    for (const data of ["one", "two", "three"])
      ids.push((await broker.broadcast(data, { channels: "a", idempotencyKey: data })).id);
    for (let count = 1; count <= 8; count++) await broker.broadcast(`b ${count}`, { channels: "b" });
    await broker.disconnect("guest", { blockFor: 600_000 });
    print({ ids });
    // Ends as a crash does, without cleaning up.
    process.kill(process.pid, "SIGKILL");
    await new Promise(() => undefined);
    break;
  }
  case "next": {
    const repeated = await broker.broadcast("one", { channels: "a", idempotencyKey: "one" });
    const last = await broker.broadcast("last", { channels: ["a", "b"], idempotencyKey: "last" });
    const guest = await broker.clientHandler(new Request("https://fanwire.test/?id=guest"));
    const [a, b] = [await resume(broker, "a", one), await resume(broker, "b", three)];
    print({ repeated: repeated.id, last: last.id, guest: guest.status, a, b });
    await broker.close();
    break;
  }
  default: {
    await broker.broadcast("opens the file");
    // In this process, but with its own connection to the file, as another process would have.
    const other = createBroker({ engine: sqliteEngine(file) });
    const code = await other.broadcast("refused").catch((error: BrokerError) => error.code);
    print({ code });
    await broker.close();
  }
}
