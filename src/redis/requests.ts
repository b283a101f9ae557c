// Requests to other processes about the streams that they hold, and their answers. They travel over the channel that each process has for itself.
import { BrokerError } from "../base/errors.ts";
import { randomName } from "../base/random.ts";
import { after } from "../base/runtime.ts";
import type { StreamAnswer, StreamRequest } from "../engine/engine.ts";
import type { Commands } from "./commands.ts";
import { engineDown } from "./errors.ts";
import { refused } from "./messages.ts";

/** The secret that proves that a message is from a process of this log. */
interface Proof {
  readonly epoch: string;
  readonly secret: string;
}

type RequestMessage = Proof & { readonly id: string; readonly from: string; readonly request: StreamRequest };
interface AnswerMessage {
  readonly id: string;
  readonly from: string;
  readonly answer?: StreamAnswer;
  readonly refusal?: { readonly code: BrokerError["code"]; readonly message: string };
}

/** A request that is not answered by all processes yet. */
interface Waiting {
  /** The processes that were asked, once that is known. */
  asked?: readonly string[];
  readonly answers: Map<string, StreamAnswer>;
  resolve(answers: readonly StreamAnswer[]): void;
  reject(error: unknown): void;
}

/** The process that sends requests, and answers those of others. */
export interface RequestHost {
  readonly process: string;
  readonly base: string;
  readonly commandTimeout: number;
  /** Absent before the first checkpoint. */
  proof(): Proof | undefined;
  /** Carries out a request on the streams of this process. */
  carryOut(request: StreamRequest): Promise<StreamAnswer>;
  onError(error: unknown): void;
}

const REQUEST = "?";
const ANSWER = "=";
const TYPES = new Set(["subscribe", "unsubscribe", "send"]);

/** Whether a message on the channel of a process is a request or an answer. */
export const isRequest = (text: string): boolean => text.startsWith(REQUEST) || text.startsWith(ANSWER);

export class PeerRequests {
  readonly #commands: Commands;
  readonly #host: RequestHost;
  readonly #waiting = new Map<string, Waiting>();

  constructor(commands: Commands, host: RequestHost) {
    this.#commands = commands;
    this.#host = host;
  }

  /**
   * Has a request carried out by every other process that may hold such a stream, and returns their answers.
   *
   * @throws {@link BrokerError} `engine-down` if one of them does not answer within `commandTimeout`; as a process refuses the request
   */
  async send(request: StreamRequest): Promise<readonly StreamAnswer[]> {
    const { process, base, commandTimeout } = this.#host;
    const proof = this.#host.proof();
    if (!proof) throw engineDown();
    const id = randomName(16);
    const message: RequestMessage = { ...proof, id, from: process, request };
    const answered = new Promise<readonly StreamAnswer[]>((resolve, reject) => {
      this.#waiting.set(id, { answers: new Map(), resolve, reject });
    });
    // It may be refused before the script has answered.
    answered.catch(() => undefined);
    const late = engineDown(new Error("Another process did not answer in time."));
    const cancel = after(commandTimeout, () => this.#waiting.get(id)?.reject(late), true);
    try {
      const args = [process, request.clientId ?? "", base, REQUEST + JSON.stringify(message)];
      const asked = (await this.#commands.run("request", args)) as string[];
      const waiting = this.#waiting.get(id);
      if (waiting) waiting.asked = asked;
      this.#resolveIfAnswered(waiting);
      return await answered;
    } finally {
      cancel();
      this.#waiting.delete(id);
    }
  }

  /** Takes a request or an answer. @throws `Error` for a message that is neither, or that no process of this log sent */
  receive(text: string): void {
    const message: unknown = JSON.parse(text.slice(1));
    if (typeof message !== "object" || message === null) throw refused("it is not a request");
    if (text.startsWith(ANSWER)) this.#take(message as AnswerMessage);
    else void this.#answer(message as RequestMessage);
  }

  #take({ id, from, answer, refusal }: AnswerMessage): void {
    // Answers that come too late are of no use, and an unknown id is nobody's.
    const waiting = this.#waiting.get(id);
    if (!waiting) return;
    if (refusal) waiting.reject(new BrokerError(refusal.code, refusal.message));
    else if (answer) waiting.answers.set(from, answer);
    this.#resolveIfAnswered(waiting);
  }

  #resolveIfAnswered(waiting: Waiting | undefined): void {
    if (waiting?.asked?.every((process) => waiting.answers.has(process)))
      waiting.resolve([...waiting.answers.values()]);
  }

  async #answer({ id, from, epoch, secret, request }: RequestMessage): Promise<void> {
    const { process, base } = this.#host;
    const proof = this.#host.proof();
    let result: Pick<AnswerMessage, "answer" | "refusal">;
    try {
      // In another epoch nothing is known of the sender; it asks again.
      if (epoch !== proof?.epoch) throw engineDown();
      if (secret !== proof.secret || !TYPES.has(request?.type))
        throw refused("no process of this log sent the request");
      result = { answer: await this.#host.carryOut(request) };
    } catch (error) {
      if (!(error instanceof BrokerError)) this.#host.onError(error);
      const { code, message } = error instanceof BrokerError ? error : engineDown(error);
      result = { refusal: { code, message } };
    }
    const answer: AnswerMessage = { id, from: process, ...result };
    const command = ["PUBLISH", `${base}:checkpoint:${from}`, ANSWER + JSON.stringify(answer)];
    this.#commands.send(command).catch((error: unknown) => this.#host.onError(error));
  }
}
