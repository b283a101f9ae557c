// Checks channel names, client ids, subjects and idempotency keys.
import { BrokerError, type ErrorCode, quote } from "../base/errors.ts";

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are the characters to refuse
const CONTROL = /[\0-\x1f\x7f]/;

/** Options that bound names. */
export interface NameBounds {
  readonly maxNameLength: number;
  readonly maxChannelsPerClient: number;
  readonly maxChannelsPerEvent: number;
}

/** Checks names. Each method returns the name, or throws. */
export class NameRules {
  readonly #bounds: NameBounds;

  constructor(bounds: NameBounds) {
    this.#bounds = bounds;
  }

  /** @throws {@link BrokerError} `bad-id` */
  clientId(id: unknown): string {
    return this.#check("Client id", "bad-id", id);
  }

  /** @throws {@link BrokerError} `bad-id` */
  runId(id: unknown): string {
    return this.#check("Run id", "bad-id", id);
  }

  /** @throws {@link BrokerError} `bad-id` */
  subject(subject: unknown): string {
    return this.#check("Subject", "bad-id", subject);
  }

  /** @throws {@link BrokerError} `bad-key` */
  idempotencyKey(key: unknown): string {
    return this.#check("Idempotency key", "bad-key", key);
  }

  /** @throws {@link BrokerError} `bad-channel` */
  channel(name: unknown): string {
    const channel = this.#check("Channel name", "bad-channel", name);
    if (channel.startsWith("fanwire-"))
      throw new BrokerError(
        "bad-channel",
        `Channel name ${quote(channel)} refused: the prefix fanwire- is reserved; choose another name.`,
      );
    return channel;
  }

  /** Returns the channels of one client, each once; at most `most`. @throws {@link BrokerError} `bad-channel` */
  channels(channels: string | readonly string[], most: number = this.#bounds.maxChannelsPerClient): readonly string[] {
    const names = new Set(typeof channels === "string" ? [channels] : channels);
    if (names.size > most)
      throw new BrokerError("bad-channel", `Channels refused: there are ${names.size}, and ${most} are allowed.`);
    return Array.from(names, (name) => this.channel(name));
  }

  /**
   * Returns the channels of one event, each once; an empty list means every client. An empty list from the caller is refused, because it is
   * more likely a mistake than meant for every client.
   *
   * @throws {@link BrokerError} `bad-channel`
   */
  targets(channels: string | readonly string[] | undefined): readonly string[] {
    if (channels === undefined) return [];
    const names = this.channels(channels, this.#bounds.maxChannelsPerEvent);
    if (names.length === 0)
      throw new BrokerError("bad-channel", "Channels refused: the list is empty; leave it out to reach every client.");
    return names;
  }

  /** Returns the channels that an open stream is to read, or no longer, each once. @throws {@link BrokerError} `bad-channel` */
  changed(channels: string | readonly string[]): readonly string[] {
    const names = this.channels(channels);
    if (names.length === 0)
      throw new BrokerError("bad-channel", "Channels refused: the list is empty; name a channel.");
    return names;
  }

  #check(kind: string, code: ErrorCode, name: unknown): string {
    if (typeof name !== "string") throw new TypeError(`${kind} refused: it must be a string, not ${typeof name}.`);
    const fault = this.#faultOf(name);
    if (fault) throw new BrokerError(code, `${kind} ${quote(name)} refused: ${fault}.`);
    return name;
  }

  #faultOf(name: string): string | undefined {
    const most = this.#bounds.maxNameLength;
    if (name === "") return "it is empty";
    if (name.length > most) return `it is longer than ${most} characters (maxNameLength)`;
    if (CONTROL.test(name)) return "it has a control character";
    // A lone surrogate has no UTF-8 form, so the name would not come back the same.
    return /\p{Surrogate}/u.test(name) ? "it has a lone surrogate" : undefined;
  }
}
