import { expect, test } from "vitest";
import { isOnlyMessages } from "./feed-messages.ts";

const message = (type: "*" | ">", text: string): string =>
  `${type}3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$${text.length}\r\n${text}\r\n`;
const check = (text: string): boolean => isOnlyMessages(Buffer.from(text));

test("isOnlyMessages: accepts one or several whole messages, in RESP2 and RESP3", () => {
  expect(check(message("*", "a"))).toBe(true);
  expect(check(message(">", "a\r\nb"))).toBe(true);
  expect(check(message("*", "a") + message("*", ""))).toBe(true);
});

test("isOnlyMessages: refuses a part of a message, a message with something else, and a reply that is not a message", () => {
  expect(check(message("*", "a").slice(0, -1))).toBe(false);
  expect(check(`${message("*", "a")}+PONG\r\n`)).toBe(false);
  expect(check(`+PONG\r\n${message("*", "a")}`)).toBe(false);
  expect(check("*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n")).toBe(false);
});
