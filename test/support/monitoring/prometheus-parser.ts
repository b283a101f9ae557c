// Reads Prometheus' text format 0.0.4, strictly, and by what its documentation says rather than by what we write.

interface Sample {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** All that has one name. */
export interface Family {
  readonly help: string;
  readonly type: string;
  readonly samples: readonly Sample[];
}

const NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*";
// What would have to be escaped is not taken, because none of it is ever written.
const HELP = new RegExp(`^# HELP (${NAME}) ([^\\\\]+)$`);
const TYPE = new RegExp(`^# TYPE (${NAME}) (counter|gauge|histogram|summary|untyped)$`);
const SAMPLE = new RegExp(`^(${NAME})(?:\\{([a-zA-Z_][a-zA-Z0-9_]*)="([^"\\\\]*)"\\})? (\\S+)$`);

/** The families of a text, by name. Throws for what a strict reader could not take: each has its help, its type and its samples, in one place. */
export function readExposition(text: string): Map<string, Family> {
  if (!text.endsWith("\n")) throw new Error("the last line does not end");
  const families = new Map<string, { help: string; type: string; samples: Sample[] }>();
  let last: { name: string; help: string; type?: string } | undefined;
  for (const line of text.slice(0, -1).split("\n")) {
    const [, helped, help] = HELP.exec(line) ?? [];
    const [, typed, type] = TYPE.exec(line) ?? [];
    const [, name = "", label, labelled = "", value] = SAMPLE.exec(line) ?? [];
    if (helped !== undefined && help !== undefined) {
      if (families.has(helped)) throw new Error(`${helped} comes twice`);
      last = { name: helped, help };
    } else if (typed !== undefined && type !== undefined) {
      if (last?.name !== typed || last.type) throw new Error(`the type of ${typed} does not follow its help`);
      last.type = type;
      families.set(typed, { help: last.help, type, samples: [] });
    } else if (value !== undefined) {
      if (last?.name !== name) throw new Error(`a sample of ${name} is not with its family`);
      const read: Sample = { labels: label === undefined ? {} : { [label]: labelled }, value: numberOf(value) };
      const samples = families.get(name)?.samples ?? [];
      const isTwice = samples.some((other) => JSON.stringify(other.labels) === JSON.stringify(read.labels));
      if (isTwice) throw new Error(`a sample comes twice: ${line}`);
      samples.push(read);
    } else {
      throw new Error(`this line is none of the format: ${line}`);
    }
  }
  return families;
}

function numberOf(text: string): number {
  const value = Number(text);
  if (!Number.isFinite(value) || text === "") throw new Error(`this is no number: ${text}`);
  return value;
}
