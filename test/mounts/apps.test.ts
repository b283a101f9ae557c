// Frameworks that build an app. One file, because mounts share the build of an app.
import { fetchMounts, nodeMounts } from "./mounts.ts";
import { testMounts } from "./test-mounts.ts";

testMounts([...nodeMounts, ...fetchMounts].filter(({ build }) => build));
