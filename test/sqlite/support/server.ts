// A broker over a SQLite file as a process of its own, on any runtime. Its settings are JSON in the environment variable SETTINGS.

import { listen } from "../../../src/cli/serve.ts";
import { decode } from "../../../src/event/sse-format.ts";
import { createBroker } from "../../../src/index.ts";
import { type SqliteEngineOptions, sqliteEngine } from "../../../src/sqlite/index.ts";

import { openRunsOf } from "../../support/runs/sessions.ts";

export interface ServerSettings {
  readonly port: number;
  readonly engine: Omit<SqliteEngineOptions, "channels" | "tenant" | "database">;
  /** Events of channels that begin with `latest`. */
  readonly latest?: number;
}

const { port, engine, latest } = JSON.parse(process.env.SETTINGS ?? "") as ServerSettings;
const channels = (name: string) => (name.startsWith("latest") ? { retention: { events: latest } } : undefined);
const sqlite = sqliteEngine({ ...engine, ...(latest === undefined ? {} : { channels }) });
let session: ReturnType<typeof openRunsOf> | undefined;
const broker = createBroker({
  engine: sqlite,
  publishToken: "secret",
  retry: 20,
  onError: ({ error }) => console.error(String(error)),
});

async function fetchHandler(request: Request, context?: unknown): Promise<Response> {
  const { pathname, searchParams } = new URL(request.url);
  switch (pathname) {
    case "/health":
      return broker.health(request);
    case "/close":
      session?.close();
      await broker.close();
      setTimeout(() => process.exit(), 10);
      return new Response("closed");
    case "/runs": {
      // A call of the store of runs.
      const { method, values } = (await request.json()) as { method: "start"; values: [string, never] };
      session ??= openRunsOf(sqlite);
      const result = (await session.runs[method](...values)) as unknown;
      const { bytes } = Object(result) as { bytes?: Uint8Array };
      return Response.json(bytes ? { ...(result as object), text: decode(bytes), bytes: undefined } : result);
    }
    case "/bar":
      return Response.json(await broker.disconnect(searchParams.get("id") ?? "", { blockFor: 600_000 }));
    case "/history": {
      const after = searchParams.get("after");
      const options = { channels: searchParams.getAll("channel"), limit: 1_000, ...(after ? { after } : {}) };
      return broker.history(options).then(
        (history) => Response.json(history),
        (error) => Response.json({ error: String(error) }, { status: 503 }),
      );
    }
    default:
      return broker.fetch(request, context);
  }
}

await listen(fetchHandler, "127.0.0.1", port);
console.log("ready");
