import { expect, test } from "vitest";
import { isMessages } from "./messages.ts";

const message = (mark: string, text: string): string =>
  `${mark}3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$${text.length}\r\n${text}\r\n`;
const is = (text: string): boolean => isMessages(Buffer.from(text));

test("isMessages: whole messages, of either version of the protocol, one or several", () => {
  expect(is(message("*", "a"))).toBe(true);
  expect(is(message(">", "a\r\nb"))).toBe(true);
  expect(is(message("*", "a") + message("*", ""))).toBe(true);
});

test("isMessages: not what is cut off, what has something else with it, and what is no message", () => {
  expect(is(message("*", "a").slice(0, -1))).toBe(false);
  expect(is(`${message("*", "a")}+PONG\r\n`)).toBe(false);
  expect(is(`+PONG\r\n${message("*", "a")}`)).toBe(false);
  expect(is("*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n")).toBe(false);
});
