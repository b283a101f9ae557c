// The broker of the server that runs the app: `../serving.ts`.
declare var fanwire: import("../../../src/index.ts").Broker;
