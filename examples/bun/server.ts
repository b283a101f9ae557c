/** A broker and its live page on Bun. PORT, HOST and PUBLISH_TOKEN come from the environment, or have defaults. */
import { type Broker, createBroker } from "fanwire";
import { serve } from "./serve.ts";

const { PUBLISH_TOKEN } = process.env;
const token = (process.env.PUBLISH_TOKEN ||= crypto.randomUUID());

// `bun --hot` loads this file again when it changes. The broker and its streams stay, with the options and the token that they began with.
declare global {
  var fanwire: Broker | undefined;
}
const broker = (globalThis.fanwire ??= createBroker({
  publishToken: token,
  // close() waits that long for a client that does not read, so it is short; one that is only slow may stay for 20 of them.
  timeout: 3_000,
  tolerance: 20,
}));

serve(broker, token, Boolean(PUBLISH_TOKEN));
