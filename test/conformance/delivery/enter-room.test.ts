// The recipe for entering a room without loss: its history, and a stream with the room, in either order, with drops at random moments.
import { expect, test } from "vitest";
import type { Broker } from "../../../src/index.ts";
import type { Connection } from "../../support/clients/connection.ts";
import { Random } from "../../support/random.ts";
import { type TestSetup, turn, withBroker } from "../../support/test-broker.ts";

const ROOMS = ["lobby", "one", "two", "three", "four"];
const MESSAGES = 2_000;
const SEEDS = [1, 2, 3, 4, 5];

/** Returns the number of a position. All positions of a test are of one epoch. */
const seqOf = (id: string): number => Number(id.slice(id.lastIndexOf("-") + 1));

/** A page that enters rooms, as the guide tells it to. It writes down each message that it shows. */
class Page {
  readonly shown = new Map<string, string[]>(ROOMS.map((room) => [room, []]));
  readonly rooms: string[] = [];
  /** The newest position that was shown of each room. */
  readonly #newest = new Map<string, number>();
  readonly #setup: TestSetup;
  readonly #broker: Broker;
  readonly #random: Random;
  #stream: Connection | undefined;
  #reading: Promise<void> | undefined;
  #lastEventId: string | undefined;

  constructor(setup: TestSetup, broker: Broker, random: Random) {
    this.#random = random;
    this.#setup = setup;
    this.#broker = broker;
  }

  /** Loads the room's history, and then opens a stream that starts at the older one of the two positions. */
  async enterByHistory(room: string): Promise<void> {
    const position = await this.#loadHistory(room);
    await this.#pause();
    const last = this.#lastEventId;
    await this.#open([...this.rooms, room], last === undefined || seqOf(position) < seqOf(last) ? position : last);
  }

  /** Opens a stream with the room, and then loads the room's history up to what the stream begins with. */
  async enterByStream(room: string): Promise<void> {
    // What the stream brings meanwhile is held back, so that the room is shown in order.
    const held: { readonly id: string; readonly data: string }[] = [];
    this.#hold = { room, held };
    await this.#open([...this.rooms, room], this.#lastEventId);
    await this.#pause();
    await this.#loadHistory(room);
    this.#hold = undefined;
    for (const { id, data } of held) this.#show(room, id, data);
  }
  #hold: { readonly room: string; readonly held: { readonly id: string; readonly data: string }[] } | undefined;

  /** The stream drops, and comes back with the last id, as an EventSource does. */
  async drop(): Promise<void> {
    if (this.rooms.length > 0) await this.#open(this.rooms, this.#lastEventId);
  }

  async readUntil(isDone: () => boolean): Promise<void> {
    while (!isDone()) await turn();
  }

  /** Lets others publish, and the stream deliver, for a moment. */
  async #pause(): Promise<void> {
    for (let turns = this.#random.integer(0, 3); turns > 0; turns--) await turn();
  }

  async #loadHistory(room: string): Promise<string> {
    for (let after: string | undefined; ; ) {
      const part = await this.#broker.history({ channels: room, limit: 7, ...(after ? { after } : {}) });
      expect(part.gaps).toEqual([]);
      for (const { id, data } of part.events) this.#show(room, id, data);
      after = part.position;
      if (!part.more) return after;
    }
  }

  /** Shows a message, unless it was shown before. */
  #show(room: string, id: string, data: string): void {
    if (seqOf(id) <= (this.#newest.get(room) ?? 0)) return;
    this.#newest.set(room, seqOf(id));
    this.shown.get(room)?.push(data);
  }

  async #open(rooms: readonly string[], lastEventId: string | undefined): Promise<void> {
    await this.#stream?.leave();
    await this.#reading;
    // In the URL of an EventSource it is sent again until the stream has brought a newer one.
    this.#lastEventId = lastEventId;
    this.rooms.splice(0, Infinity, ...rooms);
    const stream = await this.#setup.connect(this.#broker, {
      channel: rooms,
      ...(lastEventId === undefined ? {} : { lastEventId }),
    });
    this.#stream = stream;
    this.#reading = this.#read(stream);
  }

  async #read(stream: Connection): Promise<void> {
    try {
      for (;;) {
        const { id, event, data } = await stream.next();
        if (id !== undefined) this.#lastEventId = id;
        expect(event).not.toBe("fanwire-gap");
        if (event !== "message-in" || id === undefined) continue;
        const { room } = JSON.parse(data) as { room: string };
        if (this.#hold?.room === room) this.#hold.held.push({ id, data });
        else this.#show(room, id, data);
      }
    } catch {
      // The stream has ended. `drop` or the next room opens another one.
    }
  }
}

test.each(SEEDS)(
  "entering rooms by history and stream, in either order, with drops at random moments: no message is lost or doubled (seed %i)",
  (seed) =>
    withBroker(async (setup) => {
      const random = new Random(seed);
      const broker = setup.broker();
      const page = new Page(setup, broker, random);
      const published = new Map<string, string[]>(ROOMS.map((room) => [room, []]));
      const next = [...ROOMS];
      let count = 0;
      const publish = async (): Promise<void> => {
        const room = random.pick(ROOMS);
        const data = JSON.stringify({ room, text: `${count++}` });
        published.get(room)?.push(data);
        await broker.broadcast({ event: "message-in", data }, { channels: room });
      };
      const publishing = (async () => {
        while (count < MESSAGES) {
          for (let burst = random.integer(0, 19); burst >= 0; burst--) await publish();
          await turn();
        }
      })();
      while (next.length > 0 || count < MESSAGES) {
        const action = random.next();
        const room = action < 0.2 ? next.shift() : undefined;
        if (room !== undefined) await (random.chance(0.5) ? page.enterByHistory(room) : page.enterByStream(room));
        else if (action < 0.6) await page.drop();
        else await turn();
      }
      await publishing;
      const isDone = (): boolean =>
        ROOMS.every((room) => (page.shown.get(room)?.length ?? 0) >= (published.get(room)?.length ?? 0));
      await page.readUntil(isDone);
      for (const room of ROOMS) expect(page.shown.get(room)).toEqual(published.get(room));
      expect(count).toBeGreaterThanOrEqual(MESSAGES);
      await page.drop();
    })(),
);
