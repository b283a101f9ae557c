// The plots of the benchmark report.
import { expect, test } from "vitest";
import { type Panel, plot, type Series } from "../bench/plot.ts";

const panel = (title: string, series: readonly Series[]): Panel => ({ title, x: "clients", y: "µs", series });
const full = panel("full", [
  {
    name: "<one> & 'two'",
    points: [
      [65_536, 0.02],
      [120, 3],
      [4_096, 950],
    ],
  },
  { name: "three", points: [[1, 0.0004]] },
]);
const sparse = panel("sparse", [{ name: "three", points: [[1_000, 7]] }]);
const empty = panel("empty", [{ name: "three", points: [] }]);

test("plot(): the SVG is well-formed, and all texts are escaped", () => {
  const svg = plot('"a" < b & c', [full, sparse, empty]);
  const open: string[] = [];
  for (const [, closing, name, rest] of svg.matchAll(/<(\/?)([a-z]+)([^<>]*)>/g)) {
    if (closing) expect(open.pop()).toBe(name);
    else if (!rest?.endsWith("/")) open.push(name as string);
  }
  expect(open).toEqual([]);
  expect(svg.match(/<(?!\/?(?:svg|title|style|rect|text|path|polyline|g)\b)|&(?!#\d+;)/g)).toBeNull();
  expect(svg).not.toMatch(/NaN|Infinity|undefined|null/);
  expect(svg).toContain(">&#60;one&#62; &#38; &#39;two&#39;</text>");
});

test("plot(): every point is inside the frame, in the order of x", () => {
  const svg = plot("frames", [full, sparse]);
  // The frame and the points have the same coordinates.
  const [left, top, width, height] = (svg.match(/"frame" x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)"/) ?? [])
    .slice(1)
    .map(Number) as [number, number, number, number];
  const lines = [...svg.matchAll(/points="([^"]*)"/g)].map(([, points = ""]) =>
    points.split(" ").map((point) => point.split(",").map(Number) as [number, number]),
  );
  expect(lines.map((line) => line.length)).toEqual([3, 1, 1]);
  for (const [x, y] of lines.flat()) {
    expect(x).toBeGreaterThan(left);
    expect(x).toBeLessThan(left + width);
    expect(y).toBeGreaterThan(top);
    expect(y).toBeLessThan(top + height);
  }
  const across = lines[0]?.map(([x]) => x);
  expect(across).toEqual(across?.toSorted((a, b) => a - b));
});

test("plot(): a panel without points says that it was not measured, and has no ticks", () => {
  const svg = plot("nothing", [empty]);
  expect(svg).toContain(">not measured<");
  expect(svg).not.toContain('class="tick');
});

test("plot(): a name has the same look in every panel, and one line in the legend", () => {
  const svg = plot("looks", [full, sparse]);
  expect(svg.match(/class="mark s1"/g)).toHaveLength(3);
  expect(svg.match(/>three</g)).toHaveLength(1);
});

test.each([0, -1, Number.NaN, Number.POSITIVE_INFINITY])(
  "plot(): refuses %d, which has no place on a logarithmic axis",
  (value) => {
    expect(() => plot("wrong", [panel("p", [{ name: "one", points: [[10, value]] }])])).toThrow(RangeError);
    expect(() => plot("wrong", [panel("p", [{ name: "one", points: [[value, 10]] }])])).toThrow(RangeError);
  },
);

test("plot(): refuses more names than it has different looks", () => {
  const series = Array.from({ length: 7 }, (_, index) => ({ name: `${index}`, points: [] }));
  expect(() => plot("many", [panel("p", series)])).toThrow(RangeError);
});
