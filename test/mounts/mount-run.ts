// Runs the checks of one mount, one after the other.
import { BUSY, busyChecks, type CheckName, checks, HOLDS, lastChecks, QUIET, runCheck } from "./checks.ts";
import { MountServer } from "./mount-server.ts";
import type { Mount } from "./mounts.ts";

/** Milliseconds to wait for what a mount is expected to do, and for what it is not expected to do. */
const PATIENCE_MS = 40_000;
const DOUBT_MS = 2_000;

/** Outcomes of a mount that does not do something, which only time can show. */
const OMISSIONS = new Set(["all buffered", "at a write", "never", "none", "waits"]);

export const expectedOf = ({ outcomes, parsed }: Mount, check: CheckName): string =>
  outcomes?.[check] ?? (check === "after a parser" && !parsed ? "–" : HOLDS);

/** Checks of a phase share a process. */
type Phase = "quiet" | "busy" | "last";

export class MountRun {
  readonly #mount: Mount;
  #server: MountServer | undefined;
  #phase: Phase | undefined;
  readonly #output: string[] = [];
  readonly #errors: string[] = [];

  constructor(mount: Mount) {
    this.#mount = mount;
  }

  /** Returns the outcome of a check. */
  async check(name: CheckName): Promise<string> {
    if (name === "errors") return this.#conclude(this.#errors);
    if (name === "output") return this.#conclude(this.#output);
    const phase = name in busyChecks ? "busy" : name in lastChecks ? "last" : "quiet";
    const server = await this.#serverFor(phase);
    const patience = OMISSIONS.has(expectedOf(this.#mount, name)) ? DOUBT_MS : PATIENCE_MS;
    return runCheck({ ...checks, ...busyChecks, ...lastChecks }[name], {
      server,
      patience,
      parsedPath: this.#mount.parsed,
    });
  }

  /** What the processes printed, and errors that ended them or that the broker was told of. */
  get findings(): string {
    return [...this.#errors, ...this.#output].join("\n");
  }

  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (!server) return;
    // The outcome of the check has how it ended.
    if (server.isTerminated) await server.kill();
    else if (server.exit === undefined) for (const error of (await server.state()).errors) this.#errors.push(error);
    else this.#errors.push(`the process ended: ${server.exit}`);
    await server.kill();
    if (server.output) this.#output.push(server.output);
  }

  async #serverFor(phase: Phase): Promise<MountServer> {
    if (this.#server && this.#server.exit === undefined && this.#phase === phase) return this.#server;
    await this.stop();
    this.#phase = phase;
    const below = this.#mount.isBelow ? "" : "/events";
    const paths = { connect: `${below}/connect`, broadcast: `${below}/broadcast` };
    this.#server = await MountServer.start(this.#mount, { ...(phase === "busy" ? BUSY : QUIET), paths });
    return this.#server;
  }

  async #conclude(findings: readonly string[]): Promise<string> {
    await this.stop();
    return findings.length === 0 ? HOLDS : "some";
  }
}
