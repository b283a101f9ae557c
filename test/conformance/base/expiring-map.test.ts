import { expect, test } from "vitest";
import { ExpiringMap } from "../../../src/base/expiring-map.ts";
import { appendOnce, type SeenEvents } from "../../../src/engine/idempotency.ts";
import { idempotencyKeyOf } from "../../../src/event/channel-key.ts";

// What is remembered for a while, and how much of it: nobody has another one's forgotten.

const MANY = 1_000;

test("deadlines: who has names without end loses the oldest of them, and nobody else any", () => {
  const deadlines = new ExpiringMap(100);
  for (const name of ["ada's", "also ada's"]) deadlines.set(name, 60_000, true, "ada");
  deadlines.set("nobody's", 60_000, true);
  for (let index = 0; index < MANY; index++) deadlines.set(`eve ${index}`, 60_000, true, "eve");
  for (const name of ["ada's", "also ada's", "nobody's"]) expect([name, deadlines.has(name)]).toEqual([name, true]);
  const kept = Array.from({ length: MANY }, (_, index) => index).filter((index) => deadlines.has(`eve ${index}`));
  // The newest, as many as there is room for.
  expect(kept).toEqual(Array.from({ length: 97 }, (_, index) => MANY - 97 + index));
});

test("deadlines: where all of them have one name, the oldest are forgotten", () => {
  const deadlines = new ExpiringMap(100);
  for (let index = 0; index < MANY; index++) deadlines.set(`${index}`, 60_000, true, `owner ${index}`);
  const kept = Array.from({ length: MANY }, (_, index) => index).filter((index) => deadlines.has(`${index}`));
  expect(kept).toEqual(Array.from({ length: 100 }, (_, index) => MANY - 100 + index));
});

test("deadlines: one that comes late is given room by who has the most", () => {
  const deadlines = new ExpiringMap(100);
  for (let index = 0; index < 30; index++) deadlines.set(`bob ${index}`, 60_000, true, "bob");
  for (let index = 0; index < MANY; index++) deadlines.set(`eve ${index}`, 60_000, true, "eve");
  for (let index = 0; index < 20; index++) deadlines.set(`ada ${index}`, 60_000, true, "ada");
  const count = (owner: string, most: number): number =>
    Array.from({ length: most }, (_, index) => deadlines.has(`${owner} ${index}`)).filter(Boolean).length;
  expect([count("bob", 30), count("ada", 20), count("eve", MANY)]).toEqual([30, 20, 50]);
});

test("deadlines: a name that another one takes is the other one's", () => {
  const deadlines = new ExpiringMap<string>(20);
  deadlines.set("shared", 60_000, "first", "ada");
  deadlines.set("shared", 60_000, "second", "eve");
  for (let index = 0; index < MANY; index++) deadlines.set(`${index}`, 60_000, "", "eve");
  expect(deadlines.get("shared")).toBeUndefined();
});

test("deadlines: what is over goes before anything that is not, whoever has most of that", async () => {
  const deadlines = new ExpiringMap(100);
  for (let index = 0; index < 80; index++) deadlines.set(`over ${index}`, 1, true, `owner ${index}`);
  await new Promise((resolve) => setTimeout(resolve, 5));
  const forgotten: string[] = [];
  deadlines.onForget = (name) => forgotten.push(name);
  for (let index = 0; index < 100; index++) deadlines.set(`${index}`, 60_000, true, "ada");
  expect(forgotten).toEqual([]);
  for (let index = 0; index < 100; index++) expect([index, deadlines.has(`${index}`)]).toEqual([index, true]);
  deadlines.set("one more", 60_000, true, "eve");
  expect(forgotten).toEqual(["0"]);
});

test("deadlines: what is over is looked for again and again", async () => {
  const deadlines = new ExpiringMap(4 * MANY);
  deadlines.set("oldest", 60_000, true);
  for (let turn = 0; turn < 12; turn++) {
    for (let index = 0; index < MANY; index++) deadlines.set(`${turn} ${index}`, 1, true);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  // Else there would be no room for it.
  expect(deadlines.has("oldest")).toBe(true);
});

test("keys: one publisher's do not have another one's forgotten, and what is sent again is still known", () => {
  const known: SeenEvents = new ExpiringMap(100);
  let head = 0;
  const publish = (publisher: string, key: string): number =>
    appendOnce("e", known, 60_000, ["c:a"], "data: x\n\n", idempotencyKeyOf(publisher, key), () => ++head).seq;
  const first = publish("ada", "k");
  for (let index = 0; index < MANY; index++) publish("eve", `${index}`);
  // A name that begins as another one is not the same publisher.
  for (let index = 0; index < 5; index++) publish("ad", `${index}`);
  expect(publish("ada", "k")).toBe(first);
});
