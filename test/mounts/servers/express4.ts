// Express 4, behind `compression()`, which wraps the response of every path.
import compression from "compression";
import express from "express4";
import { nodeHandler } from "../../../src/node/index.ts";
import { broker, hostname, port, serving } from "../serving.ts";

const app = express();
app.use(compression());
app.use("/events", nodeHandler(broker));
app.use("/parsed", express.json(), nodeHandler(broker));
const server = app.listen(port, hostname, () => serving(() => server.close()));
