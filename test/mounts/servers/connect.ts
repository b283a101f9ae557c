// Connect 3.
import connect from "connect";
import { nodeHandler } from "../../../src/node/index.ts";
import { broker, hostname, port, serving } from "../serving.ts";

const app = connect();
app.use("/events", nodeHandler(broker));
const server = app.listen(port, hostname, () => serving(() => server.close()));
