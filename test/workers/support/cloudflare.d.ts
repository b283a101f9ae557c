// What the tests use of the runtime's modules, by its shape.

declare module "cloudflare:workers" {
  export const env: {
    readonly HUB: {
      idFromName(name: string): object;
      getByName(name: string): import("./room.ts").Stub;
    };
  };
}

declare module "cloudflare:test" {
  type Stub = import("./room.ts").Stub;
  type Inside = import("./room.ts").Inside;
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
