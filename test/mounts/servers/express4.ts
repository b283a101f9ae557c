// Express 4.
import express from "express4";
import { nodeHandler } from "../../../src/node/index.ts";
import { broker, hostname, port, serving } from "../serving.ts";

const app = express();
app.use("/events", nodeHandler(broker));
app.use("/parsed", express.json(), nodeHandler(broker));
const server = app.listen(port, hostname, () => serving(() => server.close()));
