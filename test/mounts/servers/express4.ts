// Express 4, behind `compression()`, which wraps the response of every path.
import compression from "compression";
import express, { type RequestHandler } from "express4";
import { nodeHandler } from "../../../src/node/index.ts";
import { broker, hostname, port, serving } from "../serving.ts";

const app = express();
// The types of compression are those of Express 5.
app.use(compression() as unknown as RequestHandler);
app.use("/events", nodeHandler(broker));
app.use("/parsed", express.json(), nodeHandler(broker));
const server = app.listen(port, hostname, () => serving(() => server.close()));
