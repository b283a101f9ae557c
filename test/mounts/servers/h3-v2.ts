// h3 2 on Node.
import { H3, serve } from "h3";
import { broker, hostname, port, serving } from "../serving.ts";

const app = new H3();
app.all("/events/**", (event) => broker.fetch(event.req));
app.post("/parsed", async (event) =>
  broker.eventHandler(event.req, { data: await event.req.json(), requireToken: true }),
);
const server = serve(app, { hostname, port, silent: true });
await server.ready();
serving(() => server.close());
