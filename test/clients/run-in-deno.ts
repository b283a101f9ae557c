// Runs an adapter in Deno, and prints what it reports, one JSON text on each line: an event, or `null` when the client has stopped.
const [adapter = "", url = ""] = Deno.args;
const { connect } = await import(adapter);
connect(
  url,
  (event: unknown) => console.log(JSON.stringify(event)),
  () => console.log("null"),
);
