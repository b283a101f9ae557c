// Faults in the page's half: the client, its publisher, and the React hooks.
import type { Mutant } from "./mutants.ts";

export const clientMutants: readonly Mutant[] = [
  {
    name: "batch-has-a-new-key-each-time",
    file: "client/publisher.ts",
    tests: "client/batch",
    find: 'if (key !== undefined) headers.set("idempotency-key", key);',
    replace: 'if (key !== undefined) headers.set("idempotency-key", randomKey());',
    harm: "An answer that is lost doubles every event of a batch.",
  },
  {
    name: "client-trusts-service-workers",
    file: "client/options.ts",
    tests: "client/protocol",
    find: "if (resumeId && allowed(() => page.navigator?.serviceWorker?.controller))",
    replace: "if (false)",
    harm: "Behind a service worker that sends requests of its own, all events of a pause are lost, and no gap reports them.",
  },
  {
    name: "react-closes-at-once",
    file: "react/shared-clients.ts",
    tests: "react/shared-clients",
    find: "if (shared.users > 0) return;",
    replace: "",
    harm: "In StrictMode, and whenever a list of channels is rendered again, the stream ends for every component.",
  },
  {
    name: "react-rooms-share-a-stream",
    file: "react/shared-clients.ts",
    tests: "react/shared-clients",
    find: "before && channels?.some((channel) => before.includes(channel))",
    replace: "before",
    harm: "A component that changes the room is given events of the old room as those of the new one.",
  },
  {
    name: "react-moves-the-stream-of-others",
    file: "react/shared-clients.ts",
    tests: "react/shared-clients",
    find: "if (shared.users > 0) return create(url, before, shared.client.lastEventId);",
    replace: "",
    harm: "A component that changes its channels changes those of all components with the same stream.",
  },
];
