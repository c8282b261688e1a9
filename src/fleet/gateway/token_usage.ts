/** Tokens that an answer says it took: the last `usage` of its text, without parsing the rest. */

export interface TokenUsage {
  readonly promptTokens: number;
  readonly outputTokens: number;
}

/** `usage` stands at the end of answers and in the last events of streams. */
const TAIL_BYTES = 8192;

const PROMPT = /"(?:prompt_tokens|input_tokens)"\s*:\s*(\d{1,12})/;
const OUTPUT = /"(?:completion_tokens|output_tokens)"\s*:\s*(\d{1,12})/;

/** Null = it does not say. `pieces`: the end of the answer, at least. */
export function usageOf(pieces: readonly Buffer[]): TokenUsage | null {
  let text = '';
  for (let i = pieces.length - 1; i >= 0 && text.length < TAIL_BYTES; i--) {
    const piece = pieces[i] as Buffer;
    text = piece.toString('latin1', Math.max(0, piece.length - (TAIL_BYTES - text.length))) + text;
  }
  for (let at = text.lastIndexOf('"usage"'); at >= 0; at = at === 0 ? -1 : text.lastIndexOf('"usage"', at - 1)) {
    const usage = text.slice(at, at + 1024);
    const prompt = PROMPT.exec(usage);
    const output = OUTPUT.exec(usage);
    if (prompt !== null) return { promptTokens: Number(prompt[1]), outputTokens: Number(output?.[1] ?? 0) };
  }
  return null;
}

const LF = 10;

/** Line ends in the pieces; an event of a stream has two. */
export function lineEnds(pieces: readonly Buffer[]): number {
  let count = 0;
  for (const piece of pieces) {
    for (let at = piece.indexOf(LF); at >= 0; at = piece.indexOf(LF, at + 1)) count++;
  }
  return count;
}

/** The closing event of OpenAI's streams, which is no token. */
export function endsWithDone(pieces: readonly Buffer[]): boolean {
  return pieces.at(-1)?.toString('latin1').trimEnd().endsWith('[DONE]') ?? false;
}
