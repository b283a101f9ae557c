// The main file of the Worker in which the conformance tests run on workerd.

/** A Durable Object with SQLite and no content. Each test runs inside a new one. */
export class ConformanceObject {
  fetch(): Response {
    return new Response("ConformanceObject serves no requests: tests run in it through inside()", { status: 501 });
  }
}

export default {
  fetch(): Response {
    return new Response("This Worker serves no requests: tests run inside its object", { status: 501 });
  },
};
