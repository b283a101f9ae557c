// Errors about a file: with their cause and cure for the program, and without its path for publishers and clients.
import { BrokerError, quote } from "../base/errors.ts";
import { causeOf, type FailureKind, kindOf } from "./database.ts";

/** An error whose message is the reason, such as a file of a newer version. */
export class FileError extends Error {
  override readonly name = "FileError";
}

const REASONS: Readonly<Record<FailureKind, string>> = {
  busy: "another process has it open. It is opened as soon as that process has closed it.",
  "read-only": "it is read-only. Let this process write the file and its folder.",
  full: "the disk is full. Free some space, or set a smaller logBytes.",
  damaged: "it is damaged, or is no SQLite database. Restore it from a backup, or move it away to begin a new log.",
  unreachable:
    "it cannot be read or written. Check that its folder exists, that this process may write both, and the disk.",
  "too-large": "a row is too large.",
  other: "SQLite refused.",
};

/** Returns the error that the program receives. `doing` is the action that failed, such as `Opening`. */
export function explain(doing: string, path: string | undefined, error: unknown): Error {
  const cause = causeOf(error);
  const file = path === undefined ? "the database" : quote(path);
  const reason = cause instanceof FileError ? cause.message : REASONS[kindOf(cause)];
  return new Error(`${doing} ${file} failed: ${reason}`, { cause });
}

/** Returns the error with which a call is refused. It may reach a client, so the reason is only its `cause`. */
export const refusalFor = (reason: Error): BrokerError =>
  new BrokerError("engine-down", "Refused: the file of the log cannot be used now; try again later.", {
    cause: reason,
  });
