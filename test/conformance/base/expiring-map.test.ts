import { expect, test } from "vitest";
import { ExpiringMap } from "../../../src/base/expiring-map.ts";
import { appendOnce, type SeenEvents } from "../../../src/engine/idempotency.ts";
import { idempotencyKeyOf } from "../../../src/event/channel-key.ts";

// Names that expire, and the bound of the map: no owner pushes out the names of another.

const MANY = 1_000;

test("ExpiringMap: an owner that sets names without end loses its own oldest names, and no other owner loses any", () => {
  const names = new ExpiringMap(100);
  for (const name of ["ada 1", "ada 2"]) names.set(name, 60_000, true, "ada");
  names.set("no owner", 60_000, true);
  for (let index = 0; index < MANY; index++) names.set(`eve ${index}`, 60_000, true, "eve");
  for (const name of ["ada 1", "ada 2", "no owner"]) expect([name, names.has(name)]).toEqual([name, true]);
  const remaining = Array.from({ length: MANY }, (_, index) => index).filter((index) => names.has(`eve ${index}`));
  // The newest ones, as many as there is room for.
  expect(remaining).toEqual(Array.from({ length: 97 }, (_, index) => MANY - 97 + index));
});

test("ExpiringMap: if every owner has one name, the oldest names are removed", () => {
  const names = new ExpiringMap(100);
  for (let index = 0; index < MANY; index++) names.set(`${index}`, 60_000, true, `owner ${index}`);
  const remaining = Array.from({ length: MANY }, (_, index) => index).filter((index) => names.has(`${index}`));
  expect(remaining).toEqual(Array.from({ length: 100 }, (_, index) => MANY - 100 + index));
});

test("ExpiringMap: an owner that comes late gets room from the owner that has the most names", () => {
  const names = new ExpiringMap(100);
  for (let index = 0; index < 30; index++) names.set(`bob ${index}`, 60_000, true, "bob");
  for (let index = 0; index < MANY; index++) names.set(`eve ${index}`, 60_000, true, "eve");
  for (let index = 0; index < 20; index++) names.set(`ada ${index}`, 60_000, true, "ada");
  const count = (owner: string, most: number): number =>
    Array.from({ length: most }, (_, index) => names.has(`${owner} ${index}`)).filter(Boolean).length;
  expect([count("bob", 30), count("ada", 20), count("eve", MANY)]).toEqual([30, 20, 50]);
});

test("ExpiringMap: a name that another owner sets belongs to that owner", () => {
  const names = new ExpiringMap<string>(20);
  names.set("shared", 60_000, "first", "ada");
  names.set("shared", 60_000, "second", "eve");
  for (let index = 0; index < MANY; index++) names.set(`${index}`, 60_000, "", "eve");
  expect(names.get("shared")).toBeUndefined();
});

test("ExpiringMap: expired names are removed before any others, whichever owner has the most", async () => {
  const names = new ExpiringMap(100);
  for (let index = 0; index < 80; index++) names.set(`expired ${index}`, 1, true, `owner ${index}`);
  await new Promise((resolve) => setTimeout(resolve, 5));
  const removed: string[] = [];
  names.onForget = (name) => removed.push(name);
  for (let index = 0; index < 100; index++) names.set(`${index}`, 60_000, true, "ada");
  expect(removed).toEqual([]);
  for (let index = 0; index < 100; index++) expect([index, names.has(`${index}`)]).toEqual([index, true]);
  names.set("one more", 60_000, true, "eve");
  expect(removed).toEqual(["0"]);
});

test("ExpiringMap: expired names are swept again and again", async () => {
  const names = new ExpiringMap(4 * MANY);
  names.set("oldest", 60_000, true);
  for (let turn = 0; turn < 12; turn++) {
    for (let index = 0; index < MANY; index++) names.set(`${turn} ${index}`, 1, true);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  // Without the later sweeps the map would have been full, and the oldest name removed.
  expect(names.has("oldest")).toBe(true);
});

test("ExpiringMap: after a rush of names, each new one frees two that have expired", async () => {
  const names = new ExpiringMap();
  for (let index = 0; index < 900; index++) names.set(`${index}`, 1_000, true);
  await new Promise((resolve) => setTimeout(resolve, 1_050));
  expect(names.size).toBe(900);
  for (let index = 0; index < 50; index++) names.set(`later ${index}`, 60_000, true);
  expect(names.size).toBe(850);
  expect(names.has("later 0")).toBe(true);
});

test("appendOnce: keys of one publisher do not push out those of another, and a repeat is still recognized", () => {
  const known: SeenEvents = new ExpiringMap(100);
  let head = 0;
  const publish = (publisher: string, key: string): number =>
    appendOnce("e", known, 60_000, ["c:a"], "data: x\n\n", idempotencyKeyOf(publisher, key), () => ++head).seq;
  const first = publish("ada", "k");
  for (let index = 0; index < MANY; index++) publish("eve", `${index}`);
  // A publisher whose name is the beginning of another name is a different publisher.
  for (let index = 0; index < 5; index++) publish("ad", `${index}`);
  expect(publish("ada", "k")).toBe(first);
});
