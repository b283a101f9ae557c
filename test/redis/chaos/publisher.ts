import { setTimeout as sleep } from "node:timers/promises";
import type { Epochs } from "./epochs.ts";
import type { Publication } from "./oracle.ts";
import type { Random } from "./random.ts";

/** An event while it is published. */
interface Draft extends Publication {
  id: string | undefined;
  doubtful: boolean;
  settled: boolean;
}

/** Milliseconds after which an attempt is given up. */
const PATIENCE_MS = 10_000;
const INBOX = "fanwire-inbox:";

/** Publishes over HTTP to any instance that is up, again with the same key until it is told what came of it, and keeps the books. */
export class Publisher {
  readonly published: Draft[] = [];
  /** Answers that no publisher should get. */
  readonly faults: string[] = [];
  /** Recipients that an instance did not know. */
  readonly unknown: string[] = [];
  /** How often each answer came. */
  readonly answers: Record<string, number> = {};
  /** Events that are not settled yet. */
  open = 0;
  readonly #instances: () => readonly string[];
  readonly #random: Random;
  readonly #epochs: Epochs;
  #isClosed = false;

  constructor(instances: () => readonly string[], random: Random, epochs: Epochs) {
    this.#instances = instances;
    this.#random = random;
    this.#epochs = epochs;
  }

  /**
   * Resolves with its number when it is acknowledged, or refused because its recipient is unknown. With `insists` that is asked again
   * too: the recipient is connected.
   */
  async publish(channels: readonly string[], insists = false): Promise<number> {
    const number = this.published.length + 1;
    const draft: Draft = { number, channels, id: undefined, doubtful: false, settled: false };
    this.published.push(draft);
    this.open++;
    while (!this.#isClosed) {
      const answer = await this.#attempt(draft);
      this.answers[answer] = (this.answers[answer] ?? 0) + 1;
      if (answer === "published" || (answer === "unknown-client" && !insists)) break;
      await sleep(50 + this.#random.next() * 300);
    }
    draft.settled = true;
    this.open--;
    return number;
  }

  /** Tries nothing again. */
  close(): void {
    this.#isClosed = true;
  }

  /** The numbers of those that are not settled. */
  get unsettled(): readonly number[] {
    return this.published.filter(({ settled }) => !settled).map(({ number }) => number);
  }

  async #attempt(draft: Draft): Promise<string> {
    const up = this.#instances();
    if (up.length === 0) return "nobody-up";
    try {
      const by = this.#random.pick(up);
      const response = await fetch(`${by}/broadcast?${target(draft.channels)}`, {
        method: "POST",
        body: textOf(draft.number),
        headers: { authorization: "Bearer chaos", "idempotency-key": `key-${draft.number}` },
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
      const answer = (await response.json()) as { readonly id?: string; readonly code?: string };
      if (response.status === 200 && answer.id !== undefined) {
        draft.id = answer.id;
        this.#epochs.see(answer.id);
        return "published";
      }
      const code = answer.code ?? String(response.status);
      if (code === "publish-outcome-unknown") draft.doubtful = true;
      if (code === "unknown-client") this.unknown.push(`publication ${draft.number} for ${draft.channels} at ${by}`);
      if (!EXPECTED.has(code)) this.faults.push(`publication ${draft.number} was answered ${response.status} ${code}`);
      return code;
    } catch {
      // The instance was killed, or the answer did not come: nobody knows.
      draft.doubtful = true;
      return "no-answer";
    }
  }
}

const EXPECTED = new Set(["publish-outcome-unknown", "engine-down", "unknown-client"]);

function target(channels: readonly string[]): string {
  const [first = ""] = channels;
  if (first === "fanwire-common") return "";
  if (first.startsWith(INBOX)) return `id=${first.slice(INBOX.length)}`;
  return channels.map((channel) => `channel=${channel}`).join("&");
}

/** The data of an event: its number, and as much more as makes its length differ from its neighbours'. */
const textOf = (number: number): string => `${number} ${"x".repeat((number * 37) % 240)}`;

/** The number of an event with this data; -1 if it was published with other data. */
export function numberOf(data: string): number {
  const number = Number.parseInt(data, 10);
  return data === textOf(number) ? number : -1;
}
