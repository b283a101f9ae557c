// Messages between tabs, and the Web Locks that choose the leading tab.
import type { Block, ClientState } from "./events.ts";

/** A message between tabs. `to` names one tab; without it a message is for all. */
export type Message = { readonly from: string; readonly to?: string } & (
  | { readonly say: "hello"; readonly id: string }
  | { readonly say: "lead" }
  | { readonly say: "at"; readonly id: string }
  | { readonly say: "state"; readonly state: ClientState; readonly retryIn: number | undefined }
  | { readonly say: "blocks"; readonly after: string; readonly blocks: readonly Block[] }
  | { readonly say: "alone"; readonly after: string }
  | { readonly say: "follow"; readonly after: string; readonly state: ClientState; readonly blocks: readonly Block[] }
);
export type Said<Say extends Message["say"]> = Extract<Message, { say: Say }>;
export type Content = Message extends infer M ? (M extends Message ? Omit<M, "from"> : never) : never;

/** Options of `navigator.locks.request()`, whose types not every runtime has. */
export interface LockOptions {
  readonly ifAvailable?: boolean;
  readonly steal?: boolean;
  readonly signal?: AbortSignal;
}
interface LockManager {
  request(name: string, options: LockOptions, work: (lock: unknown) => Promise<void> | undefined): Promise<unknown>;
}

/** Returns the lock manager; `undefined` where there is none, as outside of secure contexts. */
export const locks = (): LockManager | undefined =>
  (globalThis as { navigator?: { locks?: LockManager } }).navigator?.locks;
