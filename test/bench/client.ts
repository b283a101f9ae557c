// Loads one server and prints the outcome as a line of JSON: `node client.ts '{"port":…,"load":…}'`. A process of its own, so that it takes no time
// from the server and the runner.
import { type EventsLoad, type EventsOutcome, events } from "./loads/events.ts";
import { type IdleLoad, type IdleOutcome, idle } from "./loads/idle.ts";
import { type IntakeLoad, type IntakeOutcome, intake } from "./loads/intake.ts";
import { type ReplayLoad, type ReplayOutcome, replay } from "./loads/replay.ts";

/** A load to put on a server. */
export type Load = EventsLoad | ReplayLoad | IdleLoad | IntakeLoad;
/** The outcome of a load. */
export type Outcome = EventsOutcome | ReplayOutcome | IdleOutcome | IntakeOutcome;

function runLoad(port: number, load: Load): Promise<Outcome> {
  if (load.kind === "events") return events(port, load);
  if (load.kind === "replay") return replay(port, load);
  return load.kind === "idle" ? idle(port, load) : intake(port, load);
}

const { port, load } = JSON.parse(process.argv[2] as string) as { port: number; load: Load };
const outcome = await runLoad(port, load);
process.stdout.write(`${JSON.stringify(outcome)}\n`, () => process.exit());
