/**
 * A broker and its live page on Bun. PORT, HOST, PUBLISH_TOKEN and FANWIRE_FILE come from the environment, or have defaults. The log is in a
 * file, so a restart of the server loses nothing; with --memory it ends with the process.
 */
import { type Broker, createBroker, memoryEngine } from "fanwire";
import { sqliteEngine } from "fanwire/sqlite";
import { serve } from "./serve.ts";

const { PUBLISH_TOKEN, FANWIRE_FILE = "fanwire.db" } = process.env;
const file = process.argv.includes("--memory") ? undefined : FANWIRE_FILE;
const token = (process.env.PUBLISH_TOKEN ||= crypto.randomUUID());

// `bun --hot` loads this file again when it changes. The broker and its streams stay, with the options and the token that they began with.
declare global {
  var fanwire: Broker | undefined;
}
const broker = (globalThis.fanwire ??= createBroker({
  engine: file === undefined ? memoryEngine() : sqliteEngine({ path: file }),
  publishToken: token,
  // close() waits that long for a client that does not read, so it is short; one that is only slow may stay for 20 of them.
  timeout: 3_000,
  tolerance: 20,
}));

serve(broker, token, Boolean(PUBLISH_TOKEN), file);
