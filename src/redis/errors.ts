import { BrokerError } from "../base/errors.ts";

/** Replies of a server that executed nothing: they come before a script runs, or in place of its first write. */
const WITHOUT_EFFECT =
  /^(NOSCRIPT|OOM|READONLY|LOADING|MASTERDOWN|NOREPLICAS|CLUSTERDOWN|MISCONF|NOPERM|NOAUTH|BUSY|MOVED|ASK|TRYAGAIN|CROSSSLOT) /;
/** Those after which the server has to be asked whether it is the right one, and given the scripts. */
const AWAY = /^(NOSCRIPT|READONLY|LOADING|MASTERDOWN|NOAUTH|CLUSTERDOWN) /;
/** How the replies of a server begin, and no error of a client library or of a system. */
const REPLY = /^[A-Z]{2,}[A-Z0-9]* /;

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : "");

/** Whether a command was refused by the server, and not by the client library. */
export const isReply = (error: unknown): boolean =>
  REPLY.test(messageOf(error)) && !/^E(?!RR )[A-Z]+ /.test(messageOf(error));
export const isScriptError = (error: unknown): boolean => /^ERR /.test(messageOf(error));
export const hadNoEffect = (error: unknown): boolean => WITHOUT_EFFECT.test(messageOf(error));
export const meansAway = (error: unknown): boolean => AWAY.test(messageOf(error));

export const down = (cause?: unknown): BrokerError =>
  new BrokerError("engine-down", "Redis cannot be reached, or refuses: nothing was done.", { cause });

export const unknown = (cause?: unknown): BrokerError =>
  new BrokerError("publish-outcome-unknown", "Event given to Redis, which did not say what became of it.", { cause });
