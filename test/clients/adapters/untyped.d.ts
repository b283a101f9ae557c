// Declares a package that has no types of its own.
declare module "event-source-polyfill" {
  export const EventSourcePolyfill: Parameters<typeof import("./event-source-api.ts").connectWith>[0];
}
