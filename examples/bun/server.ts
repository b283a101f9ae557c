/** A broker and its live page on Bun. PORT, HOST and PUBLISH_TOKEN come from the environment, or have defaults. */
import { createBroker } from "fanwire";
import { serve } from "./serve.ts";

const { PUBLISH_TOKEN } = process.env;
const token = PUBLISH_TOKEN || crypto.randomUUID();

const broker = createBroker({
  publishToken: token,
  // close() waits that long for a client that does not read, so it is short; one that is only slow may stay for 20 of them.
  timeout: 3_000,
  tolerance: 20,
});

serve(broker, token, Boolean(PUBLISH_TOKEN));
