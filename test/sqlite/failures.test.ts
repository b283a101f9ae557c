// Disks and files that refuse: each has one clear error, loses nothing that was there, and works again when the cause is gone.
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect, type TestContext, test } from "vitest";
import { type Broker, type BrokerError, createBroker } from "../../src/index.ts";
import { type SqliteDatabase, type SqliteEngineOptions, sqliteEngine } from "../../src/sqlite/index.ts";
import { failingDatabase } from "./support/failing-database.ts";

function folderFor({ onTestFinished }: Pick<TestContext, "onTestFinished">): string {
  const folder = mkdtempSync(join(tmpdir(), "fanwire-failures-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Creates a broker, and a list of what it reports. */
function brokerOn({ onTestFinished }: Pick<TestContext, "onTestFinished">, options: SqliteEngineOptions) {
  const errors: string[] = [];
  const broker = createBroker({
    engine: sqliteEngine(options),
    onError: ({ error }) => void errors.push(String(error)),
  });
  onTestFinished(() => broker.close());
  return { broker, errors };
}

const refusalOf = (publishing: Promise<unknown>): Promise<string> =>
  publishing.then(
    () => "published",
    ({ code, message, cause }: BrokerError) => {
      // The path of a file is nothing for a client.
      expect(message).not.toContain("/");
      return `${code}: ${(cause as Error | undefined)?.message}`;
    },
  );
const healthOf = async (broker: Broker): Promise<number> =>
  (await broker.health(new Request("https://fanwire.test/health"))).status;
const dataOf = async (broker: Broker): Promise<string[]> =>
  (await broker.history({ channels: "a", limit: 1_000 })).events.map(({ data }) => data);

/** Publishes until it succeeds. */
async function publishAgain(broker: Broker, data: string): Promise<void> {
  for (;;) {
    const refusal = await refusalOf(broker.broadcast(data, { channels: "a" }));
    if (refusal === "published") return;
    expect(refusal).toMatch(/^engine-down: /);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function writeFileWith(path: string, ...data: readonly string[]): Promise<void> {
  const broker = createBroker({ engine: sqliteEngine({ path }) });
  for (const each of data) await broker.broadcast(each, { channels: "a" });
  await broker.close();
}

interface Case {
  readonly what: string;
  readonly spoil: (path: string) => void;
  readonly mend: (path: string, copy: string) => void;
  readonly says: RegExp;
}
const cases: readonly Case[] = [
  {
    what: "is not a database",
    spoil: (path) => writeFileSync(path, "something else ".repeat(1_000)),
    mend: (path, copy) => copyFileSync(copy, path),
    says: /is damaged, or is no SQLite database\. Restore it from a backup, or move it away/,
  },
  {
    what: "is of a newer version",
    spoil: (path) => setSchema(path, 99),
    mend: (path) => setSchema(path, 2),
    says: /a newer version of fanwire wrote it \(schema 99; this version knows 2\)\. Update fanwire, or use another file\./,
  },
  {
    what: "is a folder",
    spoil: (path) => {
      rmSync(path);
      mkdirSync(path);
    },
    mend: (path, copy) => {
      rmSync(path, { recursive: true });
      copyFileSync(copy, path);
    },
    says: /cannot be read or written\. Check that its folder exists, that this process may write both, and the disk\./,
  },
];

function setSchema(path: string, version: number): void {
  const database = new DatabaseSync(path);
  database.exec(`UPDATE fanwire_meta SET value = ${version} WHERE name = 'schema'`);
  database.close();
}

for (const { what, spoil, mend, says } of cases)
  test(`a file that ${what}: refused at the start without a change to it, and used as soon as it is right`, async (context) => {
    const folder = folderFor(context);
    const [path, copy] = [join(folder, "log.db"), join(folder, "copy.db")];
    await writeFileWith(path, "1", "2");
    copyFileSync(path, copy);
    spoil(path);
    const before = what === "is a folder" ? undefined : readFileSync(path);
    const { broker, errors } = brokerOn(context, { path });
    const refusal = await refusalOf(broker.broadcast("no", { channels: "a" }));
    expect(refusal).toMatch(/^engine-down: Opening /);
    expect(refusal).toMatch(says);
    expect(errors).toEqual([expect.stringMatching(says)]);
    expect(await healthOf(broker)).toBe(503);
    const answer = await broker.fetch(
      new Request("https://fanwire.test/connect", { headers: { accept: "text/event-stream" } }),
    );
    expect(await answer.text()).toContain('"reason":"engine-down","reconnect":true');
    if (before) expect(readFileSync(path).equals(before)).toBe(true);
    mend(path, copy);
    await publishAgain(broker, "3");
    expect(await dataOf(broker)).toEqual(["1", "2", "3"]);
    expect(await healthOf(broker)).toBe(200);
  });

test("a folder that is missing: refused, and used when it is there", async (context) => {
  const path = join(folderFor(context), "missing", "log.db");
  const { broker } = brokerOn(context, { path });
  expect(await refusalOf(broker.broadcast("no", { channels: "a" }))).toMatch(
    /^engine-down: .*Check that its folder exists/,
  );
  mkdirSync(join(path, ".."));
  await publishAgain(broker, "1");
  expect(existsSync(path)).toBe(true);
});

test("a file that is read-only: refused, and used when it can be written", async (context) => {
  const folder = folderFor(context);
  const path = join(folder, "log.db");
  await writeFileWith(path, "1");
  chmodSync(folder, 0o777);
  chmodSync(path, 0o444);
  const isRoot = process.geteuid?.() === 0;
  // The rights of a file do not bind the superuser.
  if (isRoot) process.seteuid?.(65_534);
  try {
    const { broker } = brokerOn(context, { path });
    expect(await refusalOf(broker.broadcast("no", { channels: "a" }))).toMatch(
      /^engine-down: .*that this process may write both/,
    );
    if (isRoot) process.seteuid?.(0);
    chmodSync(path, 0o666);
    if (isRoot) process.seteuid?.(65_534);
    await publishAgain(broker, "2");
    expect(await dataOf(broker)).toEqual(["1", "2"]);
    await broker.close();
  } finally {
    if (isRoot) process.seteuid?.(0);
  }
});

test("a full disk: publishing is refused, streams and history go on, and it works again when there is space", async (context) => {
  const database = new DatabaseSync(join(folderFor(context), "log.db"));
  context.onTestFinished(() => database.close());
  const { broker, errors } = brokerOn(context, { database, logBytes: 1e9 });
  await broker.broadcast("1", { channels: "a" });
  const { max_page_count: pages } = database.prepare("PRAGMA max_page_count = 40").get() as { max_page_count: number };
  expect(pages).toBe(40);
  const published = ["1"];
  let refusal = "published";
  for (let count = 2; refusal === "published"; count++) {
    const data = `${count} ${"x".repeat(4_000)}`;
    refusal = await refusalOf(broker.broadcast(data, { channels: "a" }));
    if (refusal === "published") published.push(data);
  }
  expect(refusal).toMatch(/^engine-down: .* the disk is full\. Free some space, or set a smaller logBytes\./);
  expect(published.length).toBeGreaterThan(5);
  expect([await healthOf(broker), broker.stats().engine]).toEqual([503, "down"]);
  expect(errors).toEqual([expect.stringContaining("the disk is full")]);
  expect(await dataOf(broker)).toEqual(published);
  const stream = await broker.fetch(new Request("https://fanwire.test/connect?channel=a&from=earliest"));
  const reader = stream.body?.getReader();
  expect(new TextDecoder().decode((await reader?.read())?.value)).toContain("fanwire-ready");
  database.exec("PRAGMA max_page_count = 100000");
  await publishAgain(broker, "last");
  expect(await dataOf(broker)).toEqual([...published, "last"]);
  expect([await healthOf(broker), broker.stats().engine]).toEqual([200, "up"]);
  await reader?.cancel();
});

test.each(["before", "after"] as const)(
  "a commit that fails %s it took effect: its outcome is unknown, and the event is delivered once or never, also if it is published again",
  async (when) => {
    const tasks: (() => unknown)[] = [];
    const context = { onTestFinished: (task: () => unknown) => void tasks.push(task) } as Pick<
      TestContext,
      "onTestFinished"
    >;
    let fails: "before" | "after" | undefined;
    const database = failingDatabase(join(folderFor(context), "log.db"), () => fails);
    const { broker } = brokerOn(context, { database });
    const listener = broker.listen({ channels: "a" });
    const received: string[] = [];
    const listening = (async () => {
      for await (const item of listener) if (item.type === "event") received.push(item.data);
    })();
    await broker.broadcast("1", { channels: "a" });
    fails = when;
    const options = { channels: "a", idempotencyKey: "k" };
    expect(await refusalOf(broker.broadcast("2", options))).toMatch(/^publish-outcome-unknown: /);
    expect(await healthOf(broker)).toBe(503);
    fails = undefined;
    while ((await healthOf(broker)) === 503) await new Promise((resolve) => setTimeout(resolve, 50));
    expect(await dataOf(broker)).toEqual(when === "after" ? ["1", "2"] : ["1"]);
    await broker.broadcast("2", options);
    await broker.broadcast("3", { channels: "a" });
    expect(await dataOf(broker)).toEqual(["1", "2", "3"]);
    await broker.close();
    await listening;
    expect(received).toEqual(["1", "2", "3"]);
    database.close();
    for (const task of tasks.reverse()) await task();
  },
);

test("a file that lost events while it was used: a new epoch, and a gap for everybody", async (context) => {
  const folder = folderFor(context);
  const [path, old] = [join(folder, "log.db"), join(folder, "old.db")];
  await writeFileWith(path, "1");
  copyFileSync(path, old);
  let fails: "before" | undefined;
  let database = failingDatabase(path, () => fails);
  // Stands for a file that is replaced while the process has it.
  const current: SqliteDatabase = {
    exec: (sql) => database.exec(sql),
    prepare: (sql) => ({
      run: (...values) => database.prepare(sql).run(...values),
      all: (...values) => database.prepare(sql).all(...values),
    }),
    close: () => undefined,
  };
  const { broker } = brokerOn(context, { database: current });
  context.onTestFinished(() => void database.close());
  const { id } = await broker.broadcast("2", { channels: "a" });
  const stream = await broker.fetch(
    new Request("https://fanwire.test/connect?channel=a", { headers: { "last-event-id": id } }),
  );
  const reader = stream.body?.pipeThrough(new TextDecoderStream()).getReader();
  expect((await reader?.read())?.value).toContain('"resumed":true');
  fails = "before";
  await refusalOf(broker.broadcast("3", { channels: "a" }));
  database.close();
  copyFileSync(old, path);
  rmSync(`${path}-wal`, { force: true });
  database = failingDatabase(path, () => undefined);
  await publishAgain(broker, "4");
  let text = "";
  while (!text.includes("data: 4")) text += (await reader?.read())?.value;
  expect(text).toContain("event: fanwire-gap");
  expect(text).toContain('"after":null');
  const next = await broker.broadcast("5", { channels: "a" });
  expect(next.id.replace(/-\d+$/, "")).not.toBe(id.replace(/-\d+$/, ""));
  await reader?.cancel();
});
