// Which tabs share a stream, and where a tab that comes late begins.
import { afterEach, expect, test, vi } from "vitest";
import type { EventClient, EventMap } from "../../../src/client/index.ts";
import { connect, type ShareOptions } from "../../../src/client/share.ts";
import type { Broker } from "../../../src/index.ts";
import { Browser, FakeChannel, type Tab } from "../../support/client/tabs.ts";
import { Random } from "../../support/random.ts";
import { withBroker } from "../../support/test-broker.ts";

const URL = "http://server/connect";

/** A tab: what it has received, and its requests for streams. */
interface OpenTab {
  readonly client: EventClient<EventMap>;
  readonly data: string[];
  readonly requests: string[];
}
/** Opens a tab, and waits until it has a position. */
type Open = (url?: string, options?: ShareOptions<EventMap>) => Promise<OpenTab>;

const until = (holds: () => boolean): Promise<unknown> => vi.waitUntil(holds, { timeout: 10_000, interval: 2 });

afterEach(() => vi.unstubAllGlobals());

function withTabs(run: (broker: Broker, open: Open) => Promise<void>): () => Promise<void> {
  return withBroker(async (setup) => {
    const browser = (FakeChannel.browser = new Browser(new Random(1)));
    vi.stubGlobal("BroadcastChannel", FakeChannel);
    vi.stubGlobal("navigator", { locks: browser.locks, userAgent: "" });
    const broker = setup.broker({ retry: 10 });
    const clients: EventClient<EventMap>[] = [];
    await run(broker, async (url = URL, options = {}) => {
      const tab: Tab = { isDead: false };
      const [data, requests]: [string[], string[]] = [[], []];
      browser.current = tab;
      const client = connect<EventMap>(url, {
        channels: "news",
        ...options,
        fetch: (address, init) => {
          requests.push(address);
          return broker.fetch(new Request(address, init));
        },
      });
      clients.push(client);
      client.on("message", (event) => data.push(event.data));
      // The client starts in a microtask, in which its tab has to be the current one.
      await until(() => client.lastEventId !== "");
      return { client, data, requests };
    });
    for (const client of clients) client.close();
  });
}

test(
  "share: tabs with the same subject have one stream, and those with another one, or with another client id, have their own",
  withTabs(async (broker, open) => {
    const all = [
      await open(URL, { share: "ann" }),
      await open(URL, { share: "ann" }),
      await open(URL, { share: "bob" }),
      await open(URL, { share: "ann", clientId: "tab" }),
      await open(URL, { share: false }),
    ];
    expect(all.map(({ requests }) => requests.length)).toEqual([1, 0, 1, 1, 1]);
    await broker.broadcast("1", { channels: "news" });
    for (const { data } of all) await until(() => data.length === 1);
  }),
);

for (const query of ["from=earliest", "last=2"])
  test(
    `?${query}: a tab that comes late receives the history that its URL asks for`,
    withTabs(async (broker, open) => {
      for (const data of ["1", "2"]) await broker.broadcast(data, { channels: "news" });
      const first = await open(`${URL}?${query}`);
      await until(() => first.data.length === 2);
      const late = await open(`${URL}?${query}`);
      await until(() => late.data.length === 2);
      await broker.broadcast("3", { channels: "news" });
      for (const { data } of [first, late]) {
        await until(() => data.length === 3);
        expect(data).toEqual(["1", "2", "3"]);
      }
    }),
  );
