/** Requests that arrive, by time: from a file of comma-separated values, or made up from a seed (`arrival_generators.ts`). */
import { TokenmillError } from '../../base/errors.ts';

export interface Arrivals {
  readonly count: number;
  /** ms since the start, ascending. */
  readonly atMs: Float64Array;
  readonly promptTokens: Uint32Array;
  readonly outputTokens: Uint32Array;
}

const MAX_ARRIVALS = 20_000_000;
const MAX_TOKENS = 10_000_000;
const MAX_LINE_CHARS = 1024;
const COLUMNS = ['time_s', 'prompt_tokens', 'output_tokens', 'key'];

/** Grows; `done` gives the arrays in their size. */
export class ArrivalsBuilder {
  private atMs = new Float64Array(1024);
  private promptTokens = new Uint32Array(1024);
  private outputTokens = new Uint32Array(1024);
  private count = 0;

  get size(): number {
    return this.count;
  }

  get lastMs(): number {
    return this.count === 0 ? 0 : (this.atMs[this.count - 1] as number);
  }

  add(atMs: number, promptTokens: number, outputTokens: number): void {
    if (this.count === this.atMs.length) this.grow();
    this.atMs[this.count] = atMs;
    this.promptTokens[this.count] = promptTokens;
    this.outputTokens[this.count++] = outputTokens;
  }

  done(): Arrivals {
    const { count } = this;
    return {
      count,
      atMs: this.atMs.slice(0, count),
      promptTokens: this.promptTokens.slice(0, count),
      outputTokens: this.outputTokens.slice(0, count),
    };
  }

  private grow(): void {
    const size = this.count * 2;
    const [atMs, prompts, outputs] = [new Float64Array(size), new Uint32Array(size), new Uint32Array(size)];
    atMs.set(this.atMs);
    prompts.set(this.promptTokens);
    outputs.set(this.outputTokens);
    [this.atMs, this.promptTokens, this.outputTokens] = [atMs, prompts, outputs];
  }
}

/**
 * `time_s,prompt_tokens,output_tokens[,key]` with that header, times ascending, in pieces of any size as a file is read.
 * `invalid_request` with the line of the first thing that is wrong. Keys are allowed and not used.
 */
export async function readArrivals(pieces: AsyncIterable<string>): Promise<Arrivals> {
  const builder = new ArrivalsBuilder();
  let rest = '';
  let line = 0;
  for await (const piece of pieces) {
    const lines = (rest + piece).split('\n');
    rest = lines.pop() as string;
    if (rest.length > MAX_LINE_CHARS) throw badLine(line + 1, `longer than ${MAX_LINE_CHARS} characters`);
    for (const text of lines) addLine(builder, text, ++line);
  }
  if (rest !== '') addLine(builder, rest, ++line);
  if (builder.size === 0) throw badLine(line, 'no arrivals in the file');
  return builder.done();
}

function badLine(line: number, why: string): TokenmillError {
  return new TokenmillError('invalid_request', `arrivals, line ${line}: ${why}.`, {
    remedy: `The first line is ${COLUMNS.slice(0, 3).join(',')} (and ,key if you like); the others are numbers, times ascending.`,
  });
}

function addLine(builder: ArrivalsBuilder, text: string, line: number): void {
  const fields = text.trimEnd().split(',');
  if (line === 1) {
    if (fields.length < 3 || fields.some((name, at) => name.trim() !== COLUMNS[at]))
      throw badLine(line, 'no such header');
    return;
  }
  if (text.trim() === '') return;
  if (fields.length < 3 || fields.length > 4) throw badLine(line, `${fields.length} fields`);
  const [time, prompt, output] = [fields[0] as string, fields[1] as string, fields[2] as string];
  const seconds = number(time);
  if (!(seconds >= 0 && seconds < 1e9)) throw badLine(line, `${JSON.stringify(time)} is no time in seconds`);
  if (seconds * 1000 < builder.lastMs) throw badLine(line, `${seconds} s comes before the line above it`);
  if (builder.size >= MAX_ARRIVALS) throw badLine(line, `more than ${MAX_ARRIVALS} arrivals`);
  builder.add(seconds * 1000, tokens(prompt, line), tokens(output, line));
}

function tokens(text: string, line: number): number {
  const count = number(text);
  if (Number.isSafeInteger(count) && count >= 1 && count <= MAX_TOKENS) return count;
  throw badLine(line, `${JSON.stringify(text)} is no number of tokens`);
}

function number(text: string): number {
  return /^\s*\d+(\.\d+)?([eE][+-]?\d+)?\s*$/.test(text) ? Number(text) : Number.NaN;
}
