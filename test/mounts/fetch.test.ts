// Frameworks that convert requests and responses themselves, and need no build.
import { fetchMounts } from "./mounts.ts";
import { testMounts } from "./test-mounts.ts";

testMounts(fetchMounts.filter(({ build }) => !build));
