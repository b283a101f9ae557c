// The types of the React hooks, and the guide's Svelte and Vue snippets with stubs for the imports from Svelte and Vue.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { build, type Plugin } from "esbuild";
import { describe, expect, expectTypeOf, test } from "vitest";
import { connect, type GapEvent, type PublishedEvent } from "../../src/client/index.ts";
import { useEvents, useLatest } from "../../src/react/index.ts";

const root = new URL("../../", import.meta.url).pathname;

test("types: events by their names, from an address and from a client", () => {
  interface Events {
    price: { ada: number };
    message: string;
  }
  // Never called: only its types count.
  function Component(): void {
    const price = useLatest<Events, "price">("/connect", "price");
    expectTypeOf(price).toEqualTypeOf<PublishedEvent<"price", { ada: number }> | undefined>();
    const client = connect<Events>("/connect");
    expectTypeOf(useLatest(client, "message")?.value).toEqualTypeOf<string | undefined>();
    useEvents(client, {
      events: ["price", "gap"],
      onEvent: (item) => expectTypeOf(item).toEqualTypeOf<PublishedEvent<"price", { ada: number }> | GapEvent>(),
    });
    useEvents<Events, "price">("/connect", {
      events: "price",
      onEvent: ({ value }) => expectTypeOf(value.ada).toBeNumber(),
    });
    // @ts-expect-error: there is no such type.
    useLatest(client, "prize");
    // @ts-expect-error: there is no such type.
    useEvents<Events>("/connect", { events: ["prize"] });
  }
  expect(Component).toBeTypeOf("function");
});

describe("the guide's snippets, with stubs for the imports from Svelte and Vue", () => {
  const guide = readFileSync(join(root, "src/react/README.md"), "utf8");
  const [svelte = "", vue = ""] = [...guide.matchAll(/^```js\n([\s\S]*?)^```/gm)].map(([, code = ""]) => code);
  const events = connectStub();
  const run = async (code: string, name: string, stubs: Record<string, string>): Promise<Record<string, unknown>> => {
    const plugin: Plugin = {
      name: "stubs",
      setup({ onResolve, onLoad }) {
        onResolve({ filter: /^(svelte|vue|fanwire)/ }, ({ path }) => ({ path, namespace: "stub" }));
        onLoad({ filter: /.*/, namespace: "stub" }, ({ path }) => ({ contents: stubs[path] ?? "" }));
      },
    };
    const { outputFiles } = await build({
      stdin: { contents: code, resolveDir: root },
      bundle: true,
      write: false,
      format: "esm",
      plugins: [plugin],
    });
    (globalThis as Record<string, unknown>).connectStub = events.connect;
    return import(`data:text/javascript,${encodeURIComponent(`${outputFiles[0]?.text}\n// ${name}`)}`);
  };
  const client = "export const connect = (...all) => globalThis.connectStub(...all);";

  test("Svelte: a readable store", async () => {
    const { price } = (await run(svelte, "svelte", {
      "fanwire/client": client,
      "svelte/store": "export const readable = (value, start) => ({ start });",
    })) as { price: { start(set: (value: unknown) => void): () => void } };
    const values: unknown[] = [];
    const stop = price.start((value) => values.push(value));
    events.emit("price", { value: { ada: 1 } });
    events.emit("gap", {});
    stop();
    expect(values).toEqual([{ ada: 1 }, undefined]);
    expect(events.closed).toBe(1);
  });

  test("Vue: a composable", async () => {
    const { usePrice } = (await run(vue, "vue", {
      "fanwire/client": client,
      vue: "export const ref = (value) => ({ value }); export const onMounted = (work) => work(); export const onUnmounted = (work) => (globalThis.unmount = work);",
    })) as { usePrice: () => { value: unknown } };
    const price = usePrice();
    events.emit("price", { value: { ada: 2 } });
    expect(price.value).toEqual({ ada: 2 });
    events.emit("gap", {});
    expect(price.value).toBe(undefined);
    (globalThis as unknown as { unmount(): void }).unmount();
    expect(events.closed).toBe(2);
  });
});

/** A client whose events a test chooses. */
function connectStub() {
  let handlers: [string, (event: unknown) => void][] = [];
  const stub = {
    closed: 0,
    connect(url: string, options: unknown) {
      expect([url, options]).toEqual(["/connect", { channels: "market" }]);
      return {
        on: (type: string, handler: (event: unknown) => void) => handlers.push([type, handler]),
        close: () => {
          handlers = [];
          stub.closed++;
        },
      };
    },
    emit(type: string, event: unknown) {
      for (const [each, handler] of handlers) if (each === type) handler(event);
    },
  };
  return stub;
}
