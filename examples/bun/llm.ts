/**
 * Answers of a model that survive a reload, on Bun. PORT, HOST and PUBLISH_TOKEN come from the environment, or have defaults. Whoever has the
 * token asks the model and stops it; everybody who knows the address of an answer reads it.
 */
import { type Broker, createBroker } from "fanwire";
import { createRuns } from "fanwire/runs";
import { answers } from "./answers.ts";

const { PORT = "3000", HOST = "127.0.0.1", PUBLISH_TOKEN } = process.env;
const token = (process.env.PUBLISH_TOKEN ||= crypto.randomUUID());

// `bun --hot` loads this file again when it changes. The broker and its runs stay, with the options and the token that they began with.
declare global {
  var fanwire: Broker | undefined;
}
const broker = (globalThis.fanwire ??= createBroker({ timeout: 3_000, tolerance: 20 }));
const serveAnswer = answers(createRuns(broker), token);

const server = Bun.serve({
  port: PORT,
  hostname: HOST,
  routes: {
    "/": new Response(Bun.file(new URL("llm.html", import.meta.url))),
    "/answers/:id": (request, server) => serveAnswer(request, server),
  },
  fetch: () => new Response("There is nothing here.", { status: 404 }),
});

// The page reads the token from the fragment, which a browser never sends. One of your own is not printed: the page asks for it.
console.log(PUBLISH_TOKEN ? `${server.url}` : `${server.url}#token=${token}`);
if (!PUBLISH_TOKEN) console.log(`curl -H "Authorization: Bearer ${token}" -d "hello" ${server.url}answers/first`);

async function shutdown(): Promise<void> {
  // Answers that are not complete are lost, and their readers come back to a server that says so.
  await broker.close();
  setTimeout(() => server.stop(true), 1_000).unref();
  await server.stop();
}

// Once: a second signal ends the process at once.
process.once("SIGTERM", () => void shutdown());
process.once("SIGINT", () => void shutdown());
