// A mount with many faults, so that the checks are seen to fail: it changes bodies, hides heartbeats and end events, and cuts streams.
import { createServer } from "node:http";
import { text } from "node:stream/consumers";
import { broker, hostname, port, serving } from "../serving.ts";

const server = createServer(async ({ method = "", url, headers }, response) => {
  console.log(method);
  const init = { method, headers: headers as Record<string, string> };
  const body = method === "POST" ? (await text(response.req)).toUpperCase() : null;
  const answer = await broker.fetch(new Request(`http://${hostname}${url}`, { ...init, body }));
  response.writeHead(method === "OPTIONS" ? 200 : answer.status, [["content-type", "text/event-stream"]].flat());
  const reader = answer.body?.getReader();
  for (;;) {
    const { value } = (await reader?.read()) ?? {};
    if (!value) break;
    const part = Buffer.from(value).toString();
    if (!/^:|fanwire-end/.test(part)) response.write(part);
  }
  if (url?.endsWith("connect")) response.destroy();
  else response.end();
});
server.listen(port, hostname, () => serving(() => process.exit(3)));
