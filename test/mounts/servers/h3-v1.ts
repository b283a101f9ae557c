// h3 1 on Node, with its own conversion of requests.
import { createServer } from "node:http";
import { createApp, eventHandler, readBody, toNodeListener, toWebRequest } from "h3-v1";
import { broker, hostname, port, serving } from "../serving.ts";

const app = createApp();
app.use(
  "/parsed",
  eventHandler(async (event) => {
    const data = await readBody(event);
    return broker.eventHandler(toWebRequest(event), { data, requireToken: true });
  }),
);
app.use(eventHandler((event) => broker.fetch(toWebRequest(event))));
const server = createServer(toNodeListener(app)).listen(port, hostname, () => serving(() => server.close()));
