/**
 * Loads one server and prints what came of it, as a line of JSON: `node client.ts '{"port":…}'`. A process of its own,
 * so that neither the server nor the runner shares its time.
 */
import { type EventsLoad, type EventsOutcome, events } from "./loads/events.ts";
import { type IdleLoad, type IdleOutcome, idle } from "./loads/idle.ts";
import { type IntakeLoad, type IntakeOutcome, intake } from "./loads/intake.ts";
import { type ReplayLoad, type ReplayOutcome, replay } from "./loads/replay.ts";

/** What to do. */
export type Load = EventsLoad | ReplayLoad | IdleLoad | IntakeLoad;
/** What came of it. */
export type Outcome = EventsOutcome | ReplayOutcome | IdleOutcome | IntakeOutcome;

function carryOut(port: number, load: Load): Promise<Outcome> {
  if (load.kind === "events") return events(port, load);
  if (load.kind === "replay") return replay(port, load);
  return load.kind === "idle" ? idle(port, load) : intake(port, load);
}

const { port, load } = JSON.parse(process.argv[2] as string) as { port: number; load: Load };
const outcome = await carryOut(port, load);
process.stdout.write(`${JSON.stringify(outcome)}\n`, () => process.exit());
