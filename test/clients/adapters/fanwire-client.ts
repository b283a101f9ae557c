// The client of this package. Reports what it makes of control events in their wire form, so that the tests of other clients fit.
import { connect as open } from "../../../src/client/index.ts";
import type { Connect } from "../client.ts";

export const connect: Connect = (url, onEvent, onStopped) => {
  const client = open(url);
  void (async () => {
    for await (const { type, ...item } of client) {
      if ("event" in item) onEvent({ type: item.event, id: item.id, data: item.data });
      else onEvent({ type: `fanwire-${type}`, data: JSON.stringify(item) });
    }
  })().finally(onStopped);
  return () => client.close();
};
