// The export `fanwire/sqlite`.
export type { SqliteDatabase } from "./database.ts";
export type { SqliteEngineOptions } from "./engine.ts";
export { sqliteEngine } from "./engine.ts";
