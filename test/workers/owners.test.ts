import { expect, test } from "vitest";
import type { EngineSession, LogOptions } from "../../src/engine.ts";
import { durableEngine } from "../../src/workers/sqlite-engine.ts";
import { type Inside, type TestObject, withObject } from "./support/test-object.ts";

// The owners of channels outlive the instance, and so does a log that an older version stored.

const LISTENER = { position: Infinity, onAppended: () => undefined, onOverrun: () => undefined };
type Storage = Inside["storage"];

/** Runs `body` with a function that starts a new instance of the engine over the storage of an object. */
const withEngines = (body: (start: (log?: LogOptions) => EngineSession, storage: Storage) => void) =>
  withObject({}, (object: TestObject) =>
    object.inside((_, { storage }) => body((log = {}) => durableEngine(storage, log).open(LISTENER), storage)),
  );

function publish(session: EngineSession, subject: string | undefined, keys: readonly string[], size = 1): void {
  void session.append(keys, `data: ${"x".repeat(size)}\n\n`, undefined, undefined, subject);
}

/** Returns the positions of the events of a channel that can be read. */
function readable({ log }: EngineSession, key: string): number[] {
  const channel = log.find(key);
  return Array.from({ length: log.head }, (_, index) => channel?.at(index)?.seq ?? 0).filter((seq) => seq > 0);
}

test(
  "owners: after a restart, the subject that published first still owns a channel, and no other one loses for it",
  withEngines((start) => {
    const bounds = { logBytes: 40_000 };
    const first = start(bounds);
    // More than a batch of rows is deleted, so that the channel's row is written as well.
    publish(first, "eve", ["#shared"]);
    for (let event = 0; event < 200; event++) publish(first, "eve", ["#shared"], 500);
    publish(first, "ada", ["#shared"]);
    publish(first, "ada", ["#ada"], 5_000);
    const second = start(bounds);
    const last = start(bounds);
    for (const session of [first, second, last]) {
      expect(session.log.find("#shared")?.owner?.name).toBe("@eve");
      expect(session.log.find("#ada")?.owner?.name).toBe("@ada");
    }
    for (let event = 0; event < 100; event++) publish(last, "eve", [`#${event}`], 500);
    expect(readable(last, "#ada")).toEqual([203]);
  }),
);

test(
  "owners: a channel that another subject took over belongs to that one after a restart",
  withEngines((start) => {
    const first = start({ logBytes: 3_000 });
    publish(first, "eve", ["#a"], 1_000);
    // The largest channel loses its event, and more than a batch of rows is deleted.
    for (let event = 0; event < 100; event++) publish(first, "eve", [`#eve ${event}`], 300);
    publish(first, "ada", ["#a"]);
    for (let event = 0; event < 100; event++) publish(first, "eve", [`#eve ${event}`], 300);
    expect(first.log.find("#a")?.owner?.name).toBe("@ada");
    expect(start().log.find("#a")?.owner?.name).toBe("@ada");
  }),
);

test(
  "owners: tenants are computed again, and one that throws stops no object from starting",
  withEngines((start) => {
    publish(start(), "ada", ["#one/a", "#two/a", "@ada"]);
    const byTenant = start({ tenant: (name) => name.slice(0, 3) });
    const ownersOf = ({ log }: EngineSession) => ["#one/a", "#two/a", "@ada"].map((key) => log.find(key)?.owner?.name);
    expect(ownersOf(byTenant)).toEqual(["#one", "#two", "@ada"]);
    const failing = start({
      tenant: () => {
        throw new Error("no tenant");
      },
    });
    expect(readable(failing, "#one/a")).toEqual([1]);
    expect(() => publish(failing, "ada", ["#three/a"])).toThrow("no tenant");
    expect(failing.log.head).toBe(1);
    expect(start().log.head).toBe(1);
  }),
);

test(
  "owners: a tenant's forgotten channels leave no doubt about those of others after a restart",
  withEngines((start) => {
    const bounds = { maxChannels: 10, tenant: (name: string) => name.slice(0, 3) };
    const first = start(bounds);
    publish(first, "ada", ["#ada/a"]);
    for (let event = 0; event < 100; event++) publish(first, "eve", [`#eve/${event}`]);
    const { log } = start(bounds);
    publish(first, "ada", ["#ada/a"]);
    expect([log.pin("#ada/new").droppedThrough, log.pin("").droppedThrough]).toEqual([0, 0]);
    expect(log.pin("#eve/new").droppedThrough).toBeGreaterThan(50);
  }),
);

test(
  "storage: a log that the first version of the tables holds is read, and continues",
  withEngines((start, { sql }) => {
    const tables = `
CREATE TABLE fanwire_meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE fanwire_events (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, keys TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE fanwire_channels (key TEXT PRIMARY KEY, dropped INTEGER NOT NULL, evicted INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO fanwire_meta VALUES ('epoch', 'old'), ('head', 7), ('forgotten', 3);
INSERT INTO fanwire_channels VALUES ('#a', 4, 0);`;
    sql.exec(tables);
    sql.exec(`INSERT INTO fanwire_events VALUES (5, ?, '["#a"]', 'data: five')`, Date.now());
    for (const restart of [1, 2]) {
      const session = start();
      expect([session.log.epoch, session.log.head, session.log.forgottenThrough]).toEqual(["old", 6 + restart, 3]);
      expect([session.log.find("#a")?.droppedThrough, session.log.pin("#new").droppedThrough]).toEqual([4, 3]);
      publish(session, "ada", ["#a"]);
      expect(readable(session, "#a")).toEqual([5, ...[8, 9].slice(0, restart)]);
    }
    expect(start().log.find("#a")?.owner?.name).toBe("@");
  }),
);
