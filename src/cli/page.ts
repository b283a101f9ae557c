// The page of `npx fanwire --open`: it shows events and publishes.

/** The page. It asks for the publish token, and keeps it for the tab only. */
export const PAGE: string = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>fanwire</title>
<link rel="icon" href="data:,">
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem; color-scheme: light dark; }
  form { display: flex; gap: .5rem; flex-wrap: wrap; margin: 1rem 0; }
  input { font: inherit; padding: .3rem .5rem; flex: 1 1 8rem; min-width: 0; }
  button { font: inherit; padding: .3rem 1rem; }
  ol { list-style: none; padding: 0; font-family: ui-monospace, monospace; }
  li { border-top: 1px solid #8884; padding: .3rem 0; overflow-wrap: anywhere; white-space: pre-wrap; }
</style>
<h1>fanwire</h1>
<form id="read"><input name="channel" placeholder="channel (empty: events for everybody)" aria-label="Channel to read"><button>Connect</button></form>
<form id="publish">
  <input name="token" type="password" placeholder="publish token" aria-label="Publish token" autocomplete="off">
  <input name="channel" placeholder="channel (empty: everybody)" aria-label="Channel to publish to">
  <input name="data" placeholder="event" aria-label="Event" required>
  <button>Publish</button>
</form>
<p id="state" role="status">not connected</p>
<ol id="events"></ol>
<script type="module">
  const byId = (id) => document.getElementById(id);
  const say = (text) => { byId("state").textContent = text; };
  function show(text) {
    const item = document.createElement("li");
    item.textContent = text;
    byId("events").prepend(item);
    while (byId("events").children.length > 200) byId("events").lastChild.remove();
  }
  const channelOf = (form) => form.channel.value ? "?channel=" + encodeURIComponent(form.channel.value) : "";
  let source;
  function connect() {
    source?.close();
    source = new EventSource("/connect" + channelOf(byId("read")));
    source.onopen = () => say("connected");
    source.onerror = () => say(source.readyState === 2 ? "refused" : "connecting again");
    source.onmessage = ({ data }) => show(data);
    source.addEventListener("fanwire-gap", ({ data }) => show("a gap: " + data));
    source.addEventListener("fanwire-end", ({ data }) => {
      if (!JSON.parse(data).reconnect) source.close();
      say("the stream ended: " + JSON.parse(data).reason);
    });
  }
  byId("read").addEventListener("submit", (event) => { event.preventDefault(); connect(); });
  byId("publish").addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = event.target;
    const response = await fetch("/broadcast" + channelOf(form), {
      method: "POST",
      headers: { authorization: "Bearer " + form.token.value },
      body: form.data.value,
    });
    const answer = await response.json();
    say(response.ok ? "sent; clients of this process: " + answer.clients : answer.detail ?? answer.title);
    if (response.ok) form.data.value = "";
  });
  connect();
</script>
</html>
`;
