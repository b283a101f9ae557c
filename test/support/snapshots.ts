// Snapshots for tests, which keep the requests that they received.
import type { Snapshot, SnapshotRequest } from "../../src/index.ts";

/** Returns a snapshot that answers with `answer`, and the requests that it has received so far. */
export function recording(answer: Snapshot): {
  readonly asked: readonly SnapshotRequest[];
  readonly snapshot: Snapshot;
} {
  const asked: SnapshotRequest[] = [];
  const snapshot: Snapshot = (request) => {
    asked.push(request);
    return answer(request);
  };
  return { asked, snapshot };
}
