// A strict parser for Prometheus' text format 0.0.4. It follows the format's documentation, not the output of this library.

interface Sample {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** The help, type and samples of one metric. */
export interface MetricFamily {
  readonly help: string;
  readonly type: string;
  readonly samples: readonly Sample[];
}

const NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*";
// Characters that need escaping are refused, because the library never writes any.
const HELP = new RegExp(`^# HELP (${NAME}) ([^\\\\]+)$`);
const TYPE = new RegExp(`^# TYPE (${NAME}) (counter|gauge|histogram|summary|untyped)$`);
const SAMPLE = new RegExp(`^(${NAME})(?:\\{([a-zA-Z_][a-zA-Z0-9_]*)="([^"\\\\]*)"\\})? (\\S+)$`);

/**
 * Returns the metric families of a text, by name.
 * @throws Error if a strict parser would refuse the text. Each family must have its help, type and samples together, in this order.
 */
export function parseExposition(text: string): Map<string, MetricFamily> {
  if (!text.endsWith("\n")) throw new Error("Parsing metrics: the last line has no LF at its end.");
  const families = new Map<string, { help: string; type: string; samples: Sample[] }>();
  let last: { name: string; help: string; type?: string } | undefined;
  for (const line of text.slice(0, -1).split("\n")) {
    const [, helpName, help] = HELP.exec(line) ?? [];
    const [, typeName, type] = TYPE.exec(line) ?? [];
    const [, name = "", label, labelValue = "", value] = SAMPLE.exec(line) ?? [];
    if (helpName !== undefined && help !== undefined) {
      if (families.has(helpName)) throw new Error(`Parsing metrics: ${helpName} is there twice.`);
      last = { name: helpName, help };
    } else if (typeName !== undefined && type !== undefined) {
      if (last?.name !== typeName || last.type)
        throw new Error(`Parsing metrics: the type of ${typeName} does not follow its help.`);
      last.type = type;
      families.set(typeName, { help: last.help, type, samples: [] });
    } else if (value !== undefined) {
      if (last?.name !== name) throw new Error(`Parsing metrics: a sample of ${name} does not stand with its family.`);
      const sample: Sample = { labels: label === undefined ? {} : { [label]: labelValue }, value: numberOf(value) };
      const samples = families.get(name)?.samples ?? [];
      const isTwice = samples.some((other) => JSON.stringify(other.labels) === JSON.stringify(sample.labels));
      if (isTwice) throw new Error(`Parsing metrics: this sample is there twice: ${line}`);
      samples.push(sample);
    } else {
      throw new Error(`Parsing metrics: this line does not have the format: ${line}`);
    }
  }
  return families;
}

function numberOf(text: string): number {
  const value = Number(text);
  if (!Number.isFinite(value) || text === "") throw new Error(`Parsing metrics: "${text}" is not a number.`);
  return value;
}
