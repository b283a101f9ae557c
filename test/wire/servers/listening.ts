// A program that listens for ever and does nothing else. It has to end by itself.
import { createBroker } from "../../../src/index.ts";

const broker = createBroker();
async function listen(): Promise<void> {
  for await (const item of broker.listen()) console.log(item.type);
}
void listen();
await broker.broadcast("x");
