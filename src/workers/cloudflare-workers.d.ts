// What the runtime's own module gives, as far as it is used here. Users have the whole of it from `wrangler types`.
declare module "cloudflare:workers" {
  export abstract class DurableObject<Env = unknown> {
    protected ctx: import("./cloudflare.ts").ObjectContext;
    protected env: Env;
    constructor(ctx: import("./cloudflare.ts").ObjectContext, env: Env);
  }
}
