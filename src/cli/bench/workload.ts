/** What the requests of a serving benchmark ask: random prompts of known length, or prompts of a file. */
import { readFile, stat } from 'node:fs/promises';
import { TokenmillError } from '../../base/errors.ts';
import type { Rng } from '../../base/rng.ts';
import type { Tokenizer } from '../../tokenizer/tokenizer.ts';
import type { Endpoint } from './openai_stream.ts';

export interface WorkItem {
  readonly prompt: string | readonly number[];
  readonly outputLen: number;
  /** Null when only the server can tell. */
  readonly promptTokens: number | null;
}

export interface RandomWork {
  readonly count: number;
  readonly inputLen: number;
  readonly outputLen: number;
  /** Tokens at the start that all prompts share; part of no request's `inputLen`. */
  readonly prefixLen: number;
  /** Lengths are uniform in `len * (1 - rangeRatio)` to `len * (1 + rangeRatio)`. */
  readonly rangeRatio: number;
}

/**
 * Ids that are ordinary tokens in every vocabulary we know of: behind the control and byte tokens that come first, and
 * within the smallest vocabularies.
 */
const FIRST_ID = 300;
const LAST_ID = 1999;

const randomIds = (count: number, rng: Rng) => Array.from({ length: count }, () => rng.int(FIRST_ID, LAST_ID));

function spread(length: number, ratio: number, rng: Rng): number {
  return Math.max(1, rng.int(Math.ceil(length * (1 - ratio)), Math.floor(length * (1 + ratio))));
}

/** Prompts of token ids. The same seed gives the same work. */
export function randomWork(work: RandomWork, rng: Rng): (WorkItem & { readonly prompt: readonly number[] })[] {
  const prefix = randomIds(work.prefixLen, rng);
  return Array.from({ length: work.count }, () => {
    const prompt = [...prefix, ...randomIds(spread(work.inputLen, work.rangeRatio, rng), rng)];
    return { prompt, outputLen: spread(work.outputLen, work.rangeRatio, rng), promptTokens: prompt.length };
  });
}

/**
 * Text of exactly `ids.length` tokens: decoded ids rarely encode to as many again, so the text is encoded and cut or
 * filled up until it does. Gives up on the exact length after a few rounds; the server's usage has the last word.
 */
export function textOfLength(ids: readonly number[], tokenizer: Tokenizer, rng: Rng): string {
  let current: number[] = [...ids];
  let text = '';
  for (let round = 0; round < 10; round++) {
    text = tokenizer.decode(current, { skipSpecialTokens: true });
    const encoded = tokenizer.encode(text, { addSpecialTokens: false });
    if (encoded.length === ids.length) return text;
    current = Array.from(encoded.subarray(0, ids.length));
    if (current.length < ids.length) current.push(...randomIds(ids.length - current.length, rng));
  }
  return text;
}

const WORDS =
  'the mill turns by water and wind while grain falls through the stone and flour fills the sack before night'.split(
    ' ',
  );

/** Random prompts as text: exact with a tokenizer, otherwise a common word a token, which is near for most vocabularies. */
export function asText(items: readonly WorkItem[], tokenizer: Tokenizer | null, rng: Rng): WorkItem[] {
  return items.map(({ prompt, outputLen }) => {
    const ids = prompt as readonly number[];
    const text =
      tokenizer === null ? ids.map((id) => WORDS[id % WORDS.length]).join(' ') : textOfLength(ids, tokenizer, rng);
    return { prompt: text, outputLen, promptTokens: null };
  });
}

const MAX_DATASET_BYTES = 512 << 20;

/** The prompt of one line of JSON: `prompt`, `text`, `question`, or the first human turn of a conversation. */
export function promptOfRecord(record: unknown): string | null {
  if (typeof record === 'string') return record;
  if (record === null || typeof record !== 'object') return null;
  const fields = record as Readonly<Record<string, unknown>>;
  for (const key of ['prompt', 'text', 'question']) if (typeof fields[key] === 'string') return fields[key];
  const turns = fields['messages'] ?? fields['conversations'];
  if (!Array.isArray(turns)) return null;
  const isHuman = (turn: Record<string, unknown>) => turn['role'] === 'user' || turn['from'] === 'human';
  const first = turns.find(
    (turn: unknown) => turn !== null && typeof turn === 'object' && isHuman(turn as Record<string, unknown>),
  );
  const content = first?.['content'] ?? first?.['value'];
  return typeof content === 'string' ? content : null;
}

/** Prompts of a text: `.jsonl` and `.json` by {@link promptOfRecord}, anything else a prompt a line. */
export function parseDataset(path: string, text: string): string[] {
  const refuse = (why: string) =>
    new TokenmillError('flag_invalid', `--dataset-path ${path}: ${why}.`, { param: '--dataset-path' });
  if (!/\.jsonl?$/.test(path)) {
    const lines = text.split(/\r?\n/).filter((line) => line.trim() !== '');
    if (lines.length === 0) throw refuse('the file has no lines');
    return lines;
  }
  let records: unknown[];
  try {
    records = path.endsWith('.json')
      ? (JSON.parse(text) as unknown[])
      : text
          .split(/\r?\n/)
          .filter((line) => line.trim() !== '')
          .map((line) => JSON.parse(line) as unknown);
  } catch (error) {
    throw refuse(`not JSON (${(error as Error).message})`);
  }
  if (!Array.isArray(records)) throw refuse('not a JSON array');
  const prompts = records.map(promptOfRecord).filter((prompt) => prompt !== null && prompt !== '') as string[];
  if (prompts.length === 0) throw refuse('no record has a prompt, text, question, messages or conversations field');
  return prompts;
}

/** `count` prompts of a file in random order, the whole file again when it has fewer. */
export async function datasetWork(path: string, count: number, outputLen: number, rng: Rng): Promise<WorkItem[]> {
  const fail = (why: string) =>
    new TokenmillError('flag_invalid', `--dataset-path ${path}: ${why}.`, { param: '--dataset-path' });
  const size = await stat(path).then(
    (found) => found.size,
    () => null,
  );
  if (size === null) throw fail('no such file');
  if (size > MAX_DATASET_BYTES) throw fail('larger than 512 MiB');
  const prompts = parseDataset(path, await readFile(path, 'utf8'));
  for (let i = prompts.length - 1; i > 0; i--) {
    const j = rng.int(0, i);
    [prompts[i], prompts[j]] = [prompts[j] as string, prompts[i] as string];
  }
  return Array.from({ length: count }, (_, i) => ({
    prompt: prompts[i % prompts.length] as string,
    outputLen,
    promptTokens: null,
  }));
}

/** The request body of one item. */
export function requestBody(
  item: WorkItem,
  endpoint: Endpoint,
  fields: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  if (endpoint === 'completions') return { ...fields, prompt: item.prompt, max_tokens: item.outputLen };
  return { ...fields, messages: [{ role: 'user', content: item.prompt }], max_completion_tokens: item.outputLen };
}
