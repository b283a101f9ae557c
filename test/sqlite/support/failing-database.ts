// A database of which each commit fails once the test says so: before or after it has taken effect.
import { DatabaseSync } from "node:sqlite";
import type { SqliteDatabase } from "../../../src/sqlite/index.ts";

export function failingDatabase(path: string, fails: () => "before" | "after" | undefined): SqliteDatabase {
  const database = new DatabaseSync(path);
  const failure = (): Error => Object.assign(new Error("disk I/O error"), { errcode: 1_034 });
  return {
    exec: (sql) => database.exec(sql),
    prepare(sql) {
      const statement = database.prepare(sql);
      if (sql !== "COMMIT") return statement;
      return {
        all: (...values) => statement.all(...values),
        run(...values) {
          const when = fails();
          if (when === "before") throw failure();
          const result = statement.run(...values);
          if (when === "after") throw failure();
          return result;
        },
      };
    },
    close: () => database.close(),
  };
}
