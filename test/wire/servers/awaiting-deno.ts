// Run by `deno test`, which fails if a promise stays pending, or if a test leaves a timer behind.
import { createBroker } from "../../../src/index.ts";

const request = new Request("http://127.0.0.1/connect?id=unread", { headers: { accept: "text/event-stream" } });

Deno.test("close(): settles with a response that was never read", async () => {
  const broker = createBroker({ timeout: 200 });
  await broker.fetch(request);
  await broker.close();
});

Deno.test("close({ force }): leaves no timer behind", async () => {
  const broker = createBroker();
  await broker.fetch(request);
  const closed = broker.close({ spreadOver: 3_600_000 });
  await new Promise((resolve) => setTimeout(resolve, 10));
  await Promise.all([closed, broker.close({ force: true })]);
});

Deno.test("report: settles with a response that was never read", async () => {
  const broker = createBroker({ timeout: 200 });
  await broker.fetch(request);
  const { report } = await broker.broadcast("x", { report: true });
  await report;
  await broker.close({ force: true });
});
