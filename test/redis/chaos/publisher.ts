// Publishes events over HTTP, and records what became of each.
import { setTimeout as sleep } from "node:timers/promises";
import type { Random } from "../../support/random.ts";
import type { Epochs } from "./epochs.ts";
import type { Publication } from "./oracle.ts";

/** A publication whose outcome may still change. */
interface OpenPublication extends Publication {
  id: string | undefined;
  isUncertain: boolean;
  isSettled: boolean;
}

/** The time after which an attempt is given up. */
const ATTEMPT_TIMEOUT_MS = 10_000;
const INBOX = "fanwire-inbox:";

/** Publishes to any instance that is up, and repeats an attempt with the same idempotency key until its outcome is known. */
export class Publisher {
  readonly publications: OpenPublication[] = [];
  /** Answers that no publisher should receive. */
  readonly faults: string[] = [];
  /** Publications whose recipient was refused as unknown. */
  readonly unknownRecipients: string[] = [];
  /** How often each answer came. */
  readonly answers: Record<string, number> = {};
  /** Publications that are not settled. */
  openCount = 0;
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
   * Publishes an event. Resolves with its number when it is acknowledged, or refused because its recipient is unknown. With
   * `"connected"` the recipients are known to be connected, and such a refusal is followed by another attempt.
   */
  async publish(channels: readonly string[], recipients: "any" | "connected" = "any"): Promise<number> {
    const number = this.publications.length + 1;
    const publication: OpenPublication = { number, channels, id: undefined, isUncertain: false, isSettled: false };
    this.publications.push(publication);
    this.openCount++;
    while (!this.#isClosed) {
      const answer = await this.#attempt(publication);
      this.answers[answer] = (this.answers[answer] ?? 0) + 1;
      if (answer === "published" || (answer === "unknown-client" && recipients === "any")) break;
      await sleep(50 + this.#random.next() * 300);
    }
    publication.isSettled = true;
    this.openCount--;
    return number;
  }

  /** Ends all attempts. */
  close(): void {
    this.#isClosed = true;
  }

  /** The numbers of publications that are not settled. */
  get unsettled(): readonly number[] {
    return this.publications.filter(({ isSettled }) => !isSettled).map(({ number }) => number);
  }

  async #attempt(publication: OpenPublication): Promise<string> {
    const instances = this.#instances();
    if (instances.length === 0) return "no-instance";
    try {
      const instance = this.#random.pick(instances);
      const response = await fetch(`${instance}/broadcast?${queryOf(publication.channels)}`, {
        method: "POST",
        body: textOf(publication.number),
        headers: { authorization: "Bearer chaos", "idempotency-key": `key-${publication.number}` },
        signal: AbortSignal.timeout(ATTEMPT_TIMEOUT_MS),
      });
      const answer = (await response.json()) as { readonly id?: string; readonly code?: string };
      if (response.status === 200 && answer.id !== undefined) {
        publication.id = answer.id;
        this.#epochs.note(answer.id);
        return "published";
      }
      const code = answer.code ?? String(response.status);
      const { number, channels } = publication;
      if (code === "publish-outcome-unknown") publication.isUncertain = true;
      if (code === "unknown-client")
        this.unknownRecipients.push(`publication ${number} for ${channels} at ${instance}`);
      if (!EXPECTED_CODES.has(code)) this.faults.push(`publication ${number} was answered ${response.status} ${code}`);
      return code;
    } catch {
      // The instance was killed, or did not answer in time. The outcome is unknown.
      publication.isUncertain = true;
      return "no-answer";
    }
  }
}

const EXPECTED_CODES = new Set(["publish-outcome-unknown", "engine-down", "unknown-client"]);

function queryOf(channels: readonly string[]): string {
  const [first = ""] = channels;
  if (first === "fanwire-common") return "";
  if (first.startsWith(INBOX)) return `id=${first.slice(INBOX.length)}`;
  return channels.map((channel) => `channel=${channel}`).join("&");
}

/** Returns the data of an event: its number, and padding that makes consecutive events differ in length. */
const textOf = (number: number): string => `${number} ${"x".repeat((number * 37) % 240)}`;

/** Returns the number of the event with this data, or -1 for other data than was published. */
export function numberOf(data: string): number {
  const number = Number.parseInt(data, 10);
  return data === textOf(number) ? number : -1;
}
