// The options of a log, and those of one of its channels.
import { quote } from "../base/errors.ts";
import { checkNumbers, withDefaults } from "../base/validate.ts";
import type { Tenant } from "./owner.ts";

/**
 * Bounds of the history of each channel, which clients that come back can read. `Infinity` sets no bound. An event of several channels is kept
 * as long as one of them keeps it.
 */
export interface Retention {
  /** Events, 1 or more. @default Infinity */
  readonly events?: number | undefined;
  /** Bytes as encoded, 1 or more. @default Infinity */
  readonly bytes?: number | undefined;
  /** Milliseconds, 1 or more. @default 300_000 */
  readonly age?: number | undefined;
}

/** Options of one channel. */
export interface ChannelOptions {
  /**
   * A bound that is not set here comes from the engine's `retention`. `events` may be 0: an event is then sent to those who can take it now, and dropped
   * as soon as it was offered to every subscriber. A client that could not take it receives a gap.
   */
  readonly retention?: Retention | undefined;
}

/** Bounds of a log. */
export interface LogOptions {
  readonly retention?: Retention | undefined;
  /**
   * Returns the options of a channel; `undefined` for none of its own. Called with the channel's name when the log begins to keep a record of
   * it, and so for a channel that was forgotten again. MUST return the same for the same name, at once. If it throws or returns something else, the
   * event, connection or call is refused, and what the channel has is kept until `channels` answers. Inboxes and events for every client have the
   * engine's `retention`.
   * @default none
   * @example channels: (name) => (name.startsWith("chat/") ? { retention: { age: 3_600_000 } } : undefined)
   */
  readonly channels?: ((name: string) => ChannelOptions | undefined) | undefined;
  /**
   * Bytes that the log may hold in total, including {@link ENTRY_COST} for each channel of each event; 1 or more. A full log drops events of the
   * owner that has the most bytes: the oldest ones of its largest channel (to within a factor of two), even if clients have not received them
   * yet. @default 33_554_432 (32 MiB)
   */
  readonly logBytes?: number | undefined;
  /**
   * Channels without a client that the log remembers, including inboxes; 1 or more. Beyond that, the owner that has the most loses the one that
   * was not used for the longest time. A client that comes back to it receives a gap. @default 100_000
   */
  readonly maxChannels?: number | undefined;
  /**
   * Returns the owner of a channel, such as the tenant that its name begins with. Owners share `logBytes` and `maxChannels`: one that keeps
   * within an equal part of both loses nothing because of others. MUST return the same string for the same channel. If it throws or returns
   * something else, the event is refused. Without it, a channel belongs to the subject that published into it first, as inboxes and the channel
   * for every client always do; events without a subject have one owner. @default none
   */
  readonly tenant?: Tenant | undefined;
}

/** As {@link Retention}, with the defaults filled in. */
export interface RetentionBounds {
  readonly events: number;
  readonly bytes: number;
  readonly age: number;
}

/** Bounds of a log, with the defaults filled in. */
export interface LogBounds {
  readonly retention: RetentionBounds;
  readonly channels: LogOptions["channels"];
  readonly logBytes: number;
  readonly maxChannels: number;
  readonly tenant: Tenant | undefined;
}

/** Returns the bounds that options set, and the engine's `others` with their defaults. @throws `RangeError` for a number out of its range, `TypeError` for an unknown option, or a `tenant` or `channels` that is not a function. */
export function resolveLogOptions<Others extends object = object>(
  where: string,
  options: LogOptions,
  others?: Others,
): LogBounds & Others {
  const functions = { tenant: undefined, channels: undefined };
  const defaults = { retention: {}, logBytes: 32 * 1024 * 1024, maxChannels: 100_000, ...functions, ...others };
  const bounds = withDefaults<LogBounds & Others>(where, "option", defaults, options);
  const unbounded = { events: Infinity, bytes: Infinity, age: 300_000 };
  const retention = withDefaults<RetentionBounds>(where, "retention option", unbounded, bounds.retention);
  const { logBytes, maxChannels, tenant, channels } = bounds;
  for (const [name, value] of Object.entries({ tenant, channels }))
    if (value !== undefined && typeof value !== "function")
      throw new TypeError(`${where} refused: ${name} must be a function, not ${String(value)}.`);
  checkNumbers(where, { logBytes, maxChannels, ...retention }, 1);
  return { ...bounds, retention };
}

/**
 * Returns the retention of a channel.
 *
 * @throws what `channels` throws; `TypeError` or `RangeError` if it returns no valid options
 */
export function retentionOf(
  { retention, channels }: Pick<LogBounds, "retention" | "channels">,
  key: string,
): RetentionBounds {
  const name = key.slice(1);
  const options = key[0] === "#" ? channels?.(name) : undefined;
  if (options === undefined) return retention;
  const where = `channels(${quote(name)})`;
  const own = withDefaults<{ retention: object }>(where, "channel option", { retention: {} }, options);
  const bounds = withDefaults<RetentionBounds>(where, "retention option", retention, own.retention);
  const { events, bytes, age } = bounds;
  checkNumbers(where, { events }, 0);
  checkNumbers(where, { bytes, age }, 1);
  return bounds;
}
