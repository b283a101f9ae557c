// React Router 8 in framework mode, in Express: a resource route. What its compiler would write is written by hand.
import { createRequestHandler } from "@react-router/express";
import express from "express";
import type { LoaderFunctionArgs, ServerBuild } from "react-router";
import { broker, hostname, port, serving } from "../serving.ts";

const events = ({ request }: LoaderFunctionArgs): Promise<Response> => broker.fetch(request);
const build = {
  entry: { module: { default: () => new Response() } },
  routes: { events: { id: "events", path: "events/*", module: { loader: events, action: events } } },
  assets: { entry: { imports: [], module: "" }, routes: {}, url: "", version: "" },
  future: {},
  publicPath: "/",
  assetsBuildDirectory: "",
  ssr: true,
  isSpaMode: false,
  prerender: [],
  routeDiscovery: { mode: "initial", manifestPath: "/__manifest" },
} as unknown as ServerBuild;
const app = express();
app.all("/{*path}", createRequestHandler({ build, mode: "production" }));
const server = app.listen(port, hostname, () => serving(() => server.close()));
