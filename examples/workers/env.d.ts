// The bindings of the configuration. `wrangler types` writes such a file for you, with the types of everything else in Workers.
declare module "cloudflare:workers" {
  export const env: {
    readonly HUB: import("fanwire/workers").ObjectNamespace;
    readonly ANSWERS: { getByName(name: string): { fetch(request: Request): Promise<Response> } };
    readonly SECRETS: { getByName(name: string): import("./hono.ts").Secrets };
    readonly PUBLISH_TOKEN: string | undefined;
    readonly TICKET_LIFE: string;
  };
}

// wrangler imports HTML files as text, and by a rule of the configuration the client, too.
declare module "fanwire/browser" {
  const text: string;
  export default text;
}
declare module "*.html" {
  const text: string;
  export default text;
}
