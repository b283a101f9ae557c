// Decides from an error whether a command had an effect, and makes the errors that publishers receive.
import { BrokerError } from "../base/errors.ts";

/** Replies of a server that changed nothing: they come before a script runs, or in place of its first write. */
const WITHOUT_EFFECT =
  /^(NOSCRIPT|OOM|READONLY|LOADING|MASTERDOWN|NOREPLICAS|CLUSTERDOWN|MISCONF|NOPERM|NOAUTH|BUSY|MOVED|ASK|TRYAGAIN|CROSSSLOT) /;
/** Replies after which the server must be prepared again: it may be the wrong one, or has lost the scripts. */
const UNPREPARED = /^(NOSCRIPT|READONLY|LOADING|MASTERDOWN|NOAUTH|CLUSTERDOWN) /;
/** The beginning of an error reply. Errors of a client library or of a system begin differently. */
const REPLY = /^[A-Z]{2,}[A-Z0-9]* /;
/** The beginning of a system's error, such as `ECONNRESET`. */
const SYSTEM_ERROR = /^E(?!RR )[A-Z]+ /;

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : "");

/** Whether a command was refused by the server, and not by the client library. */
export const isReply = (error: unknown): boolean =>
  REPLY.test(messageOf(error)) && !SYSTEM_ERROR.test(messageOf(error));
export const isScriptError = (error: unknown): boolean => /^ERR /.test(messageOf(error));
export const hadNoEffect = (error: unknown): boolean => WITHOUT_EFFECT.test(messageOf(error));
export const needsPreparation = (error: unknown): boolean => UNPREPARED.test(messageOf(error));

/** A command certainly had no effect. */
export const engineDown = (cause?: unknown): BrokerError =>
  new BrokerError("engine-down", "Redis command not executed: Redis is not reachable, or refused it. Try again.", {
    cause,
  });

/** It is unknown whether an event was appended, or a run was changed. */
export const outcomeUnknown = (cause?: unknown): BrokerError =>
  new BrokerError(
    "publish-outcome-unknown",
    "Change sent to Redis, but not confirmed. Repeat it; publish an event again with the same idempotency key.",
    { cause },
  );
