// The part of the runtime's module `cloudflare:workers` that fanwire uses. `wrangler types` writes the complete types for an application.
declare module "cloudflare:workers" {
  export abstract class DurableObject<Env = unknown> {
    protected ctx: import("./cloudflare.ts").ObjectContext;
    protected env: Env;
    constructor(ctx: import("./cloudflare.ts").ObjectContext, env: Env);
  }
}
