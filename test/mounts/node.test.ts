// `nodeHandler` in frameworks that need no build, and a faulty mount, so that the checks are seen to fail.
import { faultyMounts, nodeMounts } from "./mounts.ts";
import { testMounts } from "./test-mounts.ts";

testMounts([...nodeMounts.filter(({ build }) => !build), ...faultyMounts]);
