/** What the conformance cases stand on in workerd: an object of their own, with SQLite, and nothing in it. */
export class Stage {
  fetch(): Response {
    return new Response("Stage answers no requests: cases run in it through inside()", { status: 501 });
  }
}

export default {
  fetch(): Response {
    return new Response("this worker answers no requests: cases run in it through inside()", { status: 501 });
  },
};
