// The parts of the modules `cloudflare:workers` and `cloudflare:test` that the tests use.

declare module "cloudflare:workers" {
  export const env: {
    readonly HUB: {
      idFromName(name: string): object;
      getByName(name: string): import("./test-object.ts").Stub;
    };
  };
}

declare module "cloudflare:test" {
  type Stub = import("./test-object.ts").Stub;
  type Inside = import("./test-object.ts").Inside;
  interface Eviction {
    readonly webSockets?: "close" | "hibernate";
  }
  export function runInDurableObject<R>(
    stub: Stub,
    callback: (instance: import("../servers/main.ts").Hub, ctx: Inside) => R | Promise<R>,
  ): Promise<R>;
  export function runDurableObjectAlarm(stub: Stub): Promise<boolean>;
  export function evictDurableObject(stub: Stub, options?: Eviction): Promise<void>;
  export function evictAllDurableObjects(options?: Eviction): Promise<void>;
  export function abortAllDurableObjects(): Promise<void>;
}
