// Draws a line plot as SVG for a README. It has no scripts and no fonts of its own, because GitHub shows it as an `<img>`. It has a background of its
// own, and colours for a dark page too.

export interface Series {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

export interface Panel {
  readonly title: string;
  readonly x: string;
  readonly y: string;
  readonly series: readonly Series[];
}

/** Colour and shape of a series. The colours also differ in lightness, for colour-blind readers, and the shapes differ in any case. */
const LOOKS = [
  { light: "#1f5fe0", dark: "#2c7cf4", shape: "m-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z" },
  { light: "#e87314", dark: "#ec9727", shape: "m-4-4h8v8h-8z" },
  { light: "#0f4f38", dark: "#86efc6", shape: "m0-5.5l5 9h-10z" },
  { light: "#b50385", dark: "#cf218b", shape: "m0-6l5 6l-5 6l-5-6z" },
  { light: "#7a6010", dark: "#f5e04a", shape: "m0 5.5l5-9h-10z" },
  { light: "#949494", dark: "#a9a9a9", shape: "m-1.5-5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5z" },
] as const;

const STYLE = `
text{font:12px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#1f2328}
.title{font-size:17px;font-weight:600}
.name{font-size:14px;font-weight:600}
.unit,.tick{fill:#59636e}
.tick{font-size:11px}
.middle{text-anchor:middle}
.end{text-anchor:end}
.page{fill:#fff;stroke:#d1d9e0}
.frame{fill:none;stroke:#afb8c1}
.grid{fill:none;stroke:#e6eaef}
.line{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}
.mark{fill:currentColor;stroke:#fff}
${LOOKS.map(({ light }, index) => `.s${index}{color:${light}}`).join("")}
@media (prefers-color-scheme:dark){
text{fill:#f0f6fc}
.unit,.tick{fill:#9198a1}
.page{fill:#0d1117;stroke:#3d444d}
.frame{stroke:#59636e}
.grid{stroke:#262c36}
.mark{stroke:#0d1117}
${LOOKS.map(({ dark }, index) => `.s${index}{color:${dark}}`).join("")}
}`;

/** Sizes in pixels. */
const WIDTH = 900;
const MARGIN = 24;
const CELL = { width: 438, height: 276 };
/** The frame of a panel in its cell: below title and unit, right of its labels. */
const FRAME = { left: 48, top: 44, width: 376, height: 178 };
/** Distance between the frame and the outermost ticks, so that a mark there is drawn whole. */
const INSET = 10;
/** The least distance between two labels. */
const LABEL_ROOM = { x: 34, y: 20 };
const LEGEND_LINE = 22;

/**
 * Draws panels in two columns, with two logarithmic axes each and one legend for all.
 *
 * @throws `RangeError` if a value is not above 0 and finite, or if there are more names than looks.
 */
export function plot(title: string, panels: readonly Panel[]): string {
  const names = [...new Set(panels.flatMap(({ series }) => series.map(({ name }) => name)))];
  if (names.length > LOOKS.length) {
    throw new RangeError(`plot "${title}": ${names.length} names, but only ${LOOKS.length} looks; leave some out`);
  }
  const { lines, height } = legend(names);
  const top = 66 + height;
  const total = top + Math.ceil(panels.length / 2) * CELL.height;
  return `${[
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${total}" viewBox="0 0 ${WIDTH} ${total}" role="img">`,
    `<title>${escaped(title)}</title>`,
    `<style>${STYLE}</style>`,
    `<rect class="page" x="0.5" y="0.5" width="${WIDTH - 1}" height="${total - 1}" rx="8"/>`,
    text("title", MARGIN, 36, title),
    ...lines,
    ...panels.flatMap((panel, index) => [
      `<g transform="translate(${MARGIN / 2 + (index % 2) * CELL.width} ${top + Math.floor(index / 2) * CELL.height})">`,
      ...draw(panel, names),
      "</g>",
    ]),
    "</svg>",
  ].join("\n")}\n`;
}

/** Draws the legend in as many lines as it needs. The width of a text is estimated, rather too large, because it cannot be measured here. */
function legend(names: readonly string[]): { lines: string[]; height: number } {
  let x = MARGIN;
  let y = 62;
  const lines = names.flatMap((name, look) => {
    const width = 58 + name.length * 6.5;
    if (x > MARGIN && x + width > WIDTH) {
      x = MARGIN;
      y += LEGEND_LINE;
    }
    const left = x;
    x += width;
    return [
      `<path class="line s${look}" d="M${left} ${y}h28"/>`,
      mark(look, [[left + 14, y]]),
      text("", left + 34, y + 4, name),
    ];
  });
  return { lines, height: y - 62 + LEGEND_LINE };
}

function draw({ title, x, y, series }: Panel, names: readonly string[]): string[] {
  const { left, top, width, height } = FRAME;
  const points = series.flatMap((each) => each.points);
  const around = [
    text("name", left, 16, title),
    text("unit", left, 35, y),
    `<rect class="frame" x="${left}" y="${top}" width="${width}" height="${height}"/>`,
    text("unit middle", left + width / 2, top + height + 34, x),
  ];
  if (points.length === 0) return [...around, text("unit middle", left + width / 2, top + height / 2, "not measured")];
  const invalid = points.flat().find((value) => !(value > 0 && value < Number.POSITIVE_INFINITY));
  if (invalid !== undefined) {
    throw new RangeError(`plot "${title}": ${invalid} is not on a logarithmic axis; leave the point out`);
  }
  const [xs, ys] = [points.map(([value]) => value), points.map(([, value]) => value)];
  const across = axis(xs, { from: left + INSET, to: left + width - INSET, room: LABEL_ROOM.x });
  const up = axis(ys, { from: top + height - INSET, to: top + INSET, room: LABEL_ROOM.y });
  const grid = [
    ...across.ticks.map((tick) => `M${across.place(tick)} ${top}v${height}`),
    ...up.ticks.map((tick) => `M${left} ${up.place(tick)}h${width}`),
  ];
  return [
    ...around,
    `<path class="grid" d="${grid.join("")}"/>`,
    ...across.ticks.map((tick) => text("tick middle", across.place(tick), top + height + 15, short(tick))),
    ...up.ticks.map((tick) => text("tick end", left - 6, round(up.place(tick) + 4), short(tick))),
    ...series.flatMap(({ name, points }) => {
      const look = names.indexOf(name);
      const places = points.toSorted(([a], [b]) => a - b).map(([x, y]) => [across.place(x), up.place(y)] as const);
      return [`<polyline class="line s${look}" points="${places.join(" ")}"/>`, mark(look, places)];
    }),
  ];
}

/** Computes a logarithmic axis that begins and ends at 1, 2 or 5 times a power of ten. If there is not enough room, only powers of ten have ticks. */
function axis(values: readonly number[], { from, to, room }: { from: number; to: number; room: number }) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const steps: { value: number; exponent: number; factor: number }[] = [];
  for (let exponent = Math.floor(Math.log10(low)) - 1; exponent <= Math.ceil(Math.log10(high)) + 1; exponent++) {
    // Parsed, not computed, because 5 * 10 ** -3 need not be 0.005.
    for (const factor of [1, 2, 5]) steps.push({ value: Number(`${factor}e${exponent}`), exponent, factor });
  }
  let first = steps.findLastIndex(({ value }) => value <= low);
  let last = steps.findIndex(({ value }) => value >= high);
  if (first === last) {
    first--;
    last++;
  }
  const within = steps.slice(first, last + 1);
  const start = Math.log10(within[0]?.value ?? 1);
  const decade = (to - from) / (Math.log10(within.at(-1)?.value ?? 10) - start);
  const every = Math.ceil(room / Math.abs(decade));
  const ticks =
    Math.abs(decade) * Math.log10(2) >= room
      ? within
      : within.filter(({ factor, exponent }) => factor === 1 && exponent % every === 0);
  return {
    ticks: ticks.map(({ value }) => value),
    place: (value: number): number => round(from + (Math.log10(value) - start) * decade),
  };
}

/** Draws the marks of a series in one path. */
function mark(look: number, places: readonly (readonly [x: number, y: number])[]): string {
  return `<path class="mark s${look}" d="${places.map(([x, y]) => `M${x} ${y}${LOOKS[look]?.shape}`).join("")}"/>`;
}

function text(classes: string, x: number, y: number, content: string): string {
  return `<text class="${classes}" x="${x}" y="${y}">${escaped(content)}</text>`;
}

/** Formats a number as 0.5, 200, 5k or 1M. */
function short(value: number): string {
  if (value >= 1e6) return `${value / 1e6}M`;
  return value >= 1e3 ? `${value / 1e3}k` : String(value);
}

/** Rounds to tenths of a pixel. */
const round = (value: number): number => Math.round(value * 10) / 10;

const escaped = (content: string): string =>
  content.replace(/[&<>"']/g, (character) => `&#${character.codePointAt(0)};`);
