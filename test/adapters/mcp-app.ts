// An MCP server of the SDK whose streams continue, and a client of it.
import { randomUUID } from "node:crypto";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { WebStandardStreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js";
import { LoggingMessageNotificationSchema } from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";
import type { Broker } from "../../src/index.ts";
import type { NodeFetch } from "../../src/node/index.ts";
import { mcpEventStore } from "../../src/runs/mcp.ts";
import { words } from "./app.ts";

/** Adds tools to a server. */
export type AddTools = (server: McpServer, transport: WebStandardStreamableHTTPServerTransport) => void;

/** A tool that sends so many words, one in a notification each, and then their number. */
export const addCount: AddTools = (server) =>
  void server.registerTool("count", { inputSchema: { count: z.number() } }, async ({ count }, { sendNotification }) => {
    for await (const data of words(count))
      await sendNotification({ method: "notifications/message", params: { level: "info", data } });
    return { content: [{ type: "text", text: String(count) }] };
  });

/** The tools that scenarios of the conformance suite call. */
export const addConformanceTools: AddTools = (server, transport) => {
  const text = (words: string) => ({ content: [{ type: "text" as const, text: words }] });
  server.registerTool("test_simple_text", { description: "Returns text" }, () =>
    text("This is a simple text response for testing."),
  );
  server.registerTool("test_tool_with_logging", { description: "Logs" }, async ({ sendNotification }) => {
    for (const data of ["Tool execution started", "Tool processing data", "Tool execution completed"])
      await sendNotification({ method: "notifications/message", params: { level: "info", data } });
    return text("Logged.");
  });
  server.registerTool(
    "test_tool_with_progress",
    { description: "Reports progress" },
    async ({ _meta, sendNotification }) => {
      for (const progress of [0, 50, 100])
        if (_meta?.progressToken !== undefined)
          await sendNotification({
            method: "notifications/progress",
            params: { progressToken: _meta.progressToken, progress, total: 100 },
          });
      return text("Done.");
    },
  );
  server.registerTool("test_reconnection", { description: "Closes its stream" }, async ({ requestId }) => {
    transport.closeSSEStream(requestId);
    await new Promise((resolve) => setTimeout(resolve, 100));
    return text("Reconnected.");
  });
};

/** The handler of an application: each session has a transport, a server, and an event store. */
export function mcpApp(broker: Broker, addTools: AddTools): NodeFetch {
  const sessions = new Map<string, WebStandardStreamableHTTPServerTransport>();
  return async (request) => {
    const known = sessions.get(request.headers.get("mcp-session-id") ?? "");
    if (known) return known.handleRequest(request);
    const id = randomUUID();
    const transport = new WebStandardStreamableHTTPServerTransport({
      sessionIdGenerator: () => id,
      eventStore: mcpEventStore(broker, id),
      retryInterval: 1,
      onsessioninitialized: (session) => void sessions.set(session, transport),
    });
    const server = new McpServer({ name: "test", version: "1" }, { capabilities: { logging: {} } });
    addTools(server, transport);
    await server.connect(transport);
    return transport.handleRequest(request);
  };
}

/** A client, and the words that it has received. With `network`, calls of tools and the continuations of their streams go there. */
export async function connectTo(url: string, network = url) {
  const client = new Client({ name: "test", version: "1" });
  const received: string[] = [];
  client.setNotificationHandler(
    LoggingMessageNotificationSchema,
    ({ params }) => void received.push(String(params.data)),
  );
  const transport = new StreamableHTTPClientTransport(new URL(url), {
    reconnectionOptions: {
      initialReconnectionDelay: 1,
      maxReconnectionDelay: 5,
      reconnectionDelayGrowFactor: 1,
      maxRetries: 20,
    },
    fetch: (input, init) => {
      const isCall = String(init?.body).includes("tools/call") || new Headers(init?.headers).has("last-event-id");
      return fetch(isCall ? network : input, init);
    },
  });
  await client.connect(transport);
  return { client, transport, received };
}
