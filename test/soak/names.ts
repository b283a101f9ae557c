// Names of channels and clients in a soak run.
/** Channels, and client ids, that exist all the time. */
export const CHANNELS: readonly string[] = ["room-0", "room-1", "room-2", "room-3"];
export const STEADY_IDS: readonly string[] = ["steady-0", "steady-1", "steady-2", "steady-3"];
/** Client ids that visitors share. */
export const SHARED_IDS: readonly string[] = ["same-0", "same-1", "same-2", "same-3", "same-4", "same-5"];
/** The channel of clients that are to stall. */
export const FLOODED = "flooded";
