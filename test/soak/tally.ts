// Counts of one soak run.
/** Counts of one platform. */
export class Tally {
  /** Connections begun. */
  connects = 0;
  /** Connections that were answered, ended by FIN, ended by RST, and ended by RST before the response. */
  answered = 0;
  fins = 0;
  resets = 0;
  early = 0;
  /** Connections with a Last-Event-ID. */
  returns = 0;
  /** Clients that stalled: those that were disconnected, and those that read on after the log had evicted their events. */
  stalledOut = 0;
  overruns = 0;
  /** Events received that were the expected ones. */
  events = 0;
  /** Events published, and events published again with the same idempotency key. */
  published = 0;
  repeated = 0;
  /** Descriptions of violations. Only the first ones are kept. */
  readonly faults: string[] = [];

  fault(what: string): void {
    if (this.faults.length < 20) this.faults.push(what);
  }
}
