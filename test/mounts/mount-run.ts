// Runs the checks of one mount, one after the other.
import { BUSY, busyChecks, type CheckName, checks, HOLDS, QUIET, runCheck } from "./checks.ts";
import { MountServer } from "./mount-server.ts";
import type { Mount } from "./mounts.ts";

/** Milliseconds to wait for what a mount is expected to do, and for what it is not expected to do. */
const PATIENCE_MS = 15_000;
const DOUBT_MS = 2_000;

export const expectedOf = ({ outcomes, parsed }: Mount, check: CheckName): string =>
  outcomes?.[check] ?? (check === "after a parser" && !parsed ? "–" : HOLDS);

export class MountRun {
  readonly #mount: Mount;
  #server: MountServer | undefined;
  #isBusy = false;
  readonly #output: string[] = [];
  readonly #errors: string[] = [];

  constructor(mount: Mount) {
    this.#mount = mount;
  }

  /** Returns the outcome of a check. */
  async check(name: CheckName): Promise<string> {
    if (name === "errors") return this.#conclude(this.#errors);
    if (name === "output") return this.#conclude(this.#output);
    const isBusy = name in busyChecks;
    const server = await this.#serverFor(isBusy);
    const patience = expectedOf(this.#mount, name) === HOLDS ? PATIENCE_MS : DOUBT_MS;
    return runCheck({ ...checks, ...busyChecks }[name], { server, patience, parsedPath: this.#mount.parsed });
  }

  /** What the processes printed, and errors that ended them or that the broker was told of. */
  get findings(): string {
    return [...this.#errors, ...this.#output].join("\n");
  }

  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (!server) return;
    if (server.exit === undefined) for (const error of (await server.state()).errors) this.#errors.push(error);
    // The check "stop" ends the process with 0.
    else if (server.exit !== 0) this.#errors.push(`the process ended: ${server.exit}`);
    await server.kill();
    if (server.output) this.#output.push(server.output);
  }

  async #serverFor(isBusy: boolean): Promise<MountServer> {
    if (this.#server && this.#server.exit === undefined && this.#isBusy === isBusy) return this.#server;
    await this.stop();
    this.#isBusy = isBusy;
    this.#server = await MountServer.start(this.#mount, isBusy ? BUSY : QUIET);
    return this.#server;
  }

  async #conclude(findings: readonly string[]): Promise<string> {
    await this.stop();
    return findings.length === 0 ? HOLDS : "some";
  }
}
