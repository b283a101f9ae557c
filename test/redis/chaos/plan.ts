// The faults of a run, chosen by a seed.
import { Random } from "../../support/random.ts";

/**
 * Kinds of runs. `same-epoch`: the store loses nothing, so no gap is allowed. `lossy`: feeds lose some messages as well, and gaps may report
 * them. `any`: the store also loses data, so that the epoch changes.
 */
export const FAMILIES = ["same-epoch", "lossy", "any"] as const;
export type Family = (typeof FAMILIES)[number];

/** A fault of the store. These happen one after another. */
type StoreFault =
  /** The store answers nobody for some milliseconds. */
  | { readonly type: "sleep" | "pause"; readonly ms: number }
  /** The store closes its connections: those for commands, or those that subscribe. */
  | { readonly type: "disconnect"; readonly connections: "normal" | "pubsub" }
  /** The store refuses every command that needs memory. */
  | { readonly type: "fill"; readonly ms: number }
  /** The store is killed, and starts again empty. */
  | { readonly type: "empty"; readonly downMs: number }
  /** The store is killed some time after a snapshot, and starts again from that. */
  | { readonly type: "rewind"; readonly afterMs: number; readonly downMs: number }
  /** The store is killed some time after its replica was cut off, and the replica takes its place. */
  | { readonly type: "promote"; readonly lagMs: number };

/** A fault of one instance. Those of the same instance happen one after another. */
type InstanceFault =
  | { readonly type: "kill"; readonly downMs: number }
  /** The feed is half-open: nothing arrives, and no error shows it. */
  | { readonly type: "discard-feed" }
  /** Some chunks of messages do not arrive, and later ones do. */
  | { readonly type: "lose-messages"; readonly chunks: number };

/** A fault of some clients, by index. */
type ClientFault =
  | { readonly type: "reset" | "leave"; readonly clients: readonly number[] }
  | { readonly type: "pause"; readonly clients: readonly number[]; readonly ms: number };

/** A fault with its time, in milliseconds after the beginning. */
type At<Fault> = Fault & { readonly at: number };

/** All faults of a run. */
export interface Plan {
  readonly store: readonly At<StoreFault>[];
  /** One list for each instance. */
  readonly instances: readonly (readonly At<InstanceFault>[])[];
  readonly clients: readonly At<ClientFault>[];
}

/** The size of a run. */
export interface Size {
  readonly clients: number;
  readonly instances: number;
  /** Milliseconds in which faults begin. */
  readonly ms: number;
}

/** Makes the plan of a seed. The same seed, family and size give the same plan. */
export function makePlan(seed: number, family: Family, size: Size): Plan {
  const random = new Random(seed);
  const schedule = <Fault>(faults: readonly Fault[]): At<Fault>[] =>
    faults.map((fault) => ({ at: random.integer(0, size.ms), ...fault })).sort((a, b) => a.at - b.at);
  const harmless = Array.from({ length: random.integer(2, 4) }, () => harmlessFault(random));
  const harmful = family === "any" ? harmfulFaults(random) : [];
  return {
    store: schedule([...harmless, ...harmful]),
    instances: Array.from({ length: size.instances }, () =>
      schedule(Array.from({ length: random.integer(0, 3) }, () => instanceFault(random, family))),
    ),
    clients: schedule(Array.from({ length: Math.ceil(size.ms / 300) }, () => clientFault(random, size.clients))),
  };
}

/** Chooses a fault after which the store has all of its data. */
function harmlessFault(random: Random): StoreFault {
  switch (random.integer(0, 5)) {
    case 0:
      return { type: "sleep", ms: 1_000 };
    case 1:
      // Sometimes longer than a command may take.
      return { type: "pause", ms: random.chance(0.25) ? random.integer(3_000, 8_000) : random.integer(1_000, 3_000) };
    case 2:
      return { type: "fill", ms: random.integer(300, 2_000) };
    case 3:
      return { type: "disconnect", connections: "normal" };
    default:
      return { type: "disconnect", connections: "pubsub" };
  }
}

/** Chooses one to three faults that lose data, with at most one promotion, because there is one replica. */
function harmfulFaults(random: Random): StoreFault[] {
  const types = ["empty", "empty", "rewind", "rewind", "promote"] as const;
  return random.sample(types, random.integer(1, 3)).map((type): StoreFault => {
    const downMs = random.integer(0, 1_500);
    switch (type) {
      case "empty":
        return { type, downMs };
      case "rewind":
        return { type, afterMs: random.integer(200, 2_000), downMs };
      default:
        return { type, lagMs: random.integer(0, 1_500) };
    }
  });
}

function instanceFault(random: Random, family: Family): InstanceFault {
  const choice = random.next();
  if (family === "lossy" && choice < 0.6) return { type: "lose-messages", chunks: random.integer(1, 5) };
  return choice < 0.7 ? { type: "kill", downMs: random.integer(0, 2_000) } : { type: "discard-feed" };
}

function clientFault(random: Random, clientCount: number): ClientFault {
  const indexes = Array.from({ length: clientCount }, (_, index) => index);
  const clients = random.sample(indexes, random.integer(1, Math.ceil(clientCount / 15)));
  if (random.chance(0.3)) return { type: "pause", clients, ms: random.integer(200, 3_000) };
  return { type: random.chance(0.5) ? "reset" : "leave", clients };
}
