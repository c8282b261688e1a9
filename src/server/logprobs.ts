/** Logprobs in the three shapes of the OpenAI routes. */
import type { LogprobEntry, TokenLogprob } from '../client/async_llm.ts';

/** -Infinity has no JSON form; vLLM writes this instead. */
const LOWEST = -9999;

export const finite = (logprob: number): number => Math.max(logprob, LOWEST);

/** A token and its logprobs; null for the first token of a prompt. */
export interface LogprobRow {
  readonly tokenId: number;
  readonly text: string;
  readonly entry: TokenLogprob | null;
}

export interface CompletionLogprobs {
  text_offset: number[];
  token_logprobs: (number | null)[];
  tokens: string[];
  top_logprobs: (Record<string, number> | null)[];
}

const tokenName = (entry: { tokenId: number; token: string }, asIds: boolean): string =>
  asIds ? `token_id:${entry.tokenId}` : entry.token;

function topOf(entry: TokenLogprob, count: number): readonly LogprobEntry[] {
  return count === -1 ? entry.top : entry.top.slice(0, count);
}

/** Length in code points, as Python counts. */
function codePoints(text: string): number {
  let count = 0;
  for (const _ of text) count++;
  return count;
}

/** Completions: parallel lists; `top_logprobs` holds the chosen token and the `count` most likely ones. */
export function completionLogprobs(
  rows: readonly LogprobRow[],
  count: number,
  firstOffset: number,
  asIds: boolean,
): CompletionLogprobs {
  const out: CompletionLogprobs = { text_offset: [], token_logprobs: [], tokens: [], top_logprobs: [] };
  let offset = firstOffset;
  for (const { tokenId, text, entry } of rows) {
    const name = tokenName({ tokenId, token: entry?.token ?? text }, asIds);
    out.text_offset.push(offset);
    offset += codePoints(name);
    out.tokens.push(name);
    out.token_logprobs.push(entry ? finite(entry.logprob) : null);
    if (!entry) {
      out.top_logprobs.push(null);
      continue;
    }
    const top = new Map([[name, finite(entry.logprob)]]);
    for (const other of topOf(entry, count)) {
      const key = tokenName(other, asIds);
      if (!top.has(key)) top.set(key, finite(other.logprob));
    }
    out.top_logprobs.push(Object.fromEntries(top));
  }
  return out;
}

interface ChatLogprob {
  readonly token: string;
  readonly logprob: number;
  readonly bytes: readonly number[];
}

function chatEntry(entry: LogprobEntry, asIds: boolean): ChatLogprob {
  return { token: tokenName(entry, asIds), logprob: finite(entry.logprob), bytes: [...entry.bytes] };
}

/** Chat: `content` list with the `count` most likely tokens of each position. */
export function chatLogprobs(entries: readonly TokenLogprob[], count: number, asIds: boolean) {
  return {
    content: entries.map((entry) => ({
      ...chatEntry(entry, asIds),
      top_logprobs: topOf(entry, count).map((other) => chatEntry(other, asIds)),
    })),
  };
}

type PromptLogprob = Record<string, { logprob: number; rank: number; decoded_token: string }>;

/** vLLM's `prompt_logprobs`: per prompt token null or {token id: {logprob, rank, decoded_token}}, the prompt's own token first. */
export function promptLogprobs(entries: readonly (TokenLogprob | null)[] | null): (PromptLogprob | null)[] | null {
  if (!entries) return null;
  return entries.map((entry) => {
    if (!entry) return null;
    const row: PromptLogprob = {};
    for (const e of [entry, ...entry.top]) {
      row[String(e.tokenId)] ??= { logprob: finite(e.logprob), rank: e.rank, decoded_token: e.token };
    }
    return row;
  });
}
