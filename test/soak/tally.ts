/** What happened on one platform. */
export class Tally {
  /** Connections begun. */
  connects = 0;
  /** Those among them that were answered, those that ended with FIN, with RST, and with RST before the answer. */
  answered = 0;
  polite = 0;
  resets = 0;
  hasty = 0;
  /** Connections with a Last-Event-ID. */
  returns = 0;
  /** Clients that stopped to read: those that were disconnected for it, and those that read on when the log had dropped what they missed. */
  stalledOut = 0;
  overruns = 0;
  /** Events that were what had to come next. */
  events = 0;
  /** Events published, and those that were published again under the same key. */
  published = 0;
  repeated = 0;
  /** What must not be. Only the first are kept. */
  readonly faults: string[] = [];

  fault(what: string): void {
    if (this.faults.length < 20) this.faults.push(what);
  }
}
