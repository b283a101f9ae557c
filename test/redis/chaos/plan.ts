import { Random } from "./random.ts";

/**
 * What a run may do: with `same-epoch` nothing that loses what the store has, so that no gap at all is allowed; with `lossy` the same, and
 * feeds leave out some of what they say, of which gaps may tell; with `any` the store loses what it has as well.
 */
export const FAMILIES = ["same-epoch", "lossy", "any"] as const;
export type Family = (typeof FAMILIES)[number];

/** Something that happens to the store. One after another. */
type StoreFault =
  /** It answers nobody for so long. */
  | { readonly do: "sleep" | "pause"; readonly ms: number }
  /** Its connections are closed: those for commands, or those that subscribe. */
  | { readonly do: "disconnect"; readonly kind: "normal" | "pubsub" }
  /** It refuses whatever needs memory. */
  | { readonly do: "fill"; readonly ms: number }
  /** It is killed and has nothing left when it comes back. */
  | { readonly do: "empty"; readonly downMs: number }
  /** It is killed some time after it was saved, and comes back with that. */
  | { readonly do: "rewind"; readonly afterMs: number; readonly downMs: number }
  /** It is killed some time after its replica was cut off, and that takes its place. */
  | { readonly do: "promote"; readonly lagMs: number };

/** Something that happens to one instance. One after another for each of them. */
type InstanceFault =
  | { readonly do: "kill"; readonly downMs: number }
  /** Its feed is half-open: nothing comes, and nobody says so. */
  | { readonly do: "swallow" }
  /** Some of what the feed says does not come, and what follows does. */
  | { readonly do: "lose"; readonly pieces: number };

/** Something that happens to clients. */
type ClientFault =
  | { readonly do: "reset" | "leave"; readonly clients: readonly number[] }
  | { readonly do: "stall"; readonly clients: readonly number[]; readonly ms: number };

/** Milliseconds after the beginning. */
type At<Fault> = Fault & { readonly at: number };

/** All that is done in a run, beside publishing. */
export interface Plan {
  readonly store: readonly At<StoreFault>[];
  /** For each instance. */
  readonly instances: readonly (readonly At<InstanceFault>[])[];
  readonly clients: readonly At<ClientFault>[];
}

/** How large a run is. */
export interface Size {
  readonly clients: number;
  readonly instances: number;
  /** Milliseconds in which faults begin. */
  readonly ms: number;
}

/** The same seed, family and size give the same plan. */
export function makePlan(seed: number, family: Family, size: Size): Plan {
  const random = new Random(seed);
  const inOrder = <Fault>(faults: readonly Fault[]): At<Fault>[] =>
    faults.map((fault) => ({ at: random.integer(0, size.ms), ...fault })).sort((a, b) => a.at - b.at);
  const mild = Array.from({ length: random.integer(2, 4) }, () => mildFault(random));
  const harsh = family === "any" ? harshFaults(random) : [];
  return {
    store: inOrder([...mild, ...harsh]),
    instances: Array.from({ length: size.instances }, () =>
      inOrder(Array.from({ length: random.integer(0, 3) }, () => instanceFault(random, family === "lossy"))),
    ),
    clients: inOrder(Array.from({ length: Math.ceil(size.ms / 300) }, () => clientFault(random, size.clients))),
  };
}

function mildFault(random: Random): StoreFault {
  switch (random.integer(0, 5)) {
    case 0:
      return { do: "sleep", ms: 1_000 };
    case 1:
      // Long enough now and then that a command is given up.
      return { do: "pause", ms: random.chance(0.25) ? random.integer(3_000, 8_000) : random.integer(1_000, 3_000) };
    case 2:
      return { do: "fill", ms: random.integer(300, 2_000) };
    case 3:
      return { do: "disconnect", kind: "normal" };
    default:
      return { do: "disconnect", kind: "pubsub" };
  }
}

/** One to three, a promotion at most once: there is one replica. */
function harshFaults(random: Random): StoreFault[] {
  const kinds = ["empty", "empty", "rewind", "rewind", "promote"] as const;
  return random.sample(kinds, random.integer(1, 3)).map((kind): StoreFault => {
    const downMs = random.integer(0, 1_500);
    switch (kind) {
      case "empty":
        return { do: "empty", downMs };
      case "rewind":
        return { do: "rewind", afterMs: random.integer(200, 2_000), downMs };
      default:
        return { do: "promote", lagMs: random.integer(0, 1_500) };
    }
  });
}

function instanceFault(random: Random, loses: boolean): InstanceFault {
  const kind = random.next();
  if (loses && kind < 0.6) return { do: "lose", pieces: random.integer(1, 5) };
  return kind < 0.7 ? { do: "kill", downMs: random.integer(0, 2_000) } : { do: "swallow" };
}

function clientFault(random: Random, all: number): ClientFault {
  const numbers = Array.from({ length: all }, (_, index) => index);
  const clients = random.sample(numbers, random.integer(1, Math.ceil(all / 15)));
  if (random.chance(0.3)) return { do: "stall", clients, ms: random.integer(200, 3_000) };
  return { do: random.chance(0.5) ? "reset" : "leave", clients };
}
