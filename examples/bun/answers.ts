// A model that only pretends, and the requests for its answers: the same on Bun and on Workers.
import { BrokerError } from "fanwire";
import type { Run, Runs } from "fanwire/runs";

const PAUSE_MS = 40;

/** Returns the whole answer to a prompt. */
export const answerTo = (prompt: string): string => `You asked: “${prompt}”

A real model would think about that. This one types the same words to everybody, at twenty-five a second, and it does not mind who reads along.

Reload this page while it types: the words that you have seen come back at once, and the next one follows, without a gap and without a repetition. Open it in a second tab: both tabs show the same words at the same time. Close both, and come back within five minutes: the answer is here, whole, because a closed tab stops nothing.

The stop button does. It reaches the model wherever that runs, and all readers learn that the answer was stopped, and did not just break off.`;

/** Types an answer, a word at a time, until it is complete or stopped. The last event tells the page how the answer has ended. */
async function type(run: Run, prompt: string): Promise<void> {
  for (const word of answerTo(prompt).match(/\s*\S+/g) ?? []) {
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    // A real model would receive this signal, and would stop by itself.
    if (run.stopped.aborted) break;
    await run.write(word);
  }
  const reason = run.stopped.aborted ? "stopped" : "ended";
  await run.close(reason, { event: "end", data: reason });
}

/** Whether a request presents a token. Digests are compared, because the time that this takes says nothing about the token. */
async function presents(request: Request, token: string): Promise<boolean> {
  const digest = async (text: string): Promise<string> =>
    String(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text))));
  return (await digest(request.headers.get("authorization") ?? "")) === (await digest(`Bearer ${token}`));
}

/** Creates the handler of `/answers/<id>`: POST asks the model, DELETE stops it, and GET reads the answer. Asking and stopping need the token. */
export function answers(runs: Runs, token: string): (request: Request, context?: unknown) => Promise<Response> {
  return async (request, context) => {
    const { method, url } = request;
    const id = new URL(url).pathname.slice("/answers/".length);
    try {
      if ((method === "POST" || method === "DELETE") && !(await presents(request, token)))
        throw new BrokerError("unauthorized", "Present the token.", { headers: { "www-authenticate": "Bearer" } });
      if (method === "DELETE") return Response.json({ stopped: await runs.stop(id) });
      if (method === "POST") {
        const prompt = (await request.text()).slice(0, 200);
        const run = await runs.start(id);
        type(run, prompt).catch((error: unknown) => console.warn(`The answer ${id} stays incomplete. ${error}`));
      }
      return await runs.response(id, request, { context });
    } catch (error) {
      if (!(error instanceof BrokerError)) throw error;
      const { code, headers, message, status } = error;
      return Response.json({ code, detail: message }, { status, headers });
    }
  };
}
