/** `tokenmill run "prompt"`: one answer on stdout, statistics on stderr. */
import { TokenmillError } from '../base/errors.ts';
import type { GenerationDelta } from '../client/async_llm.ts';
import type { LLMEngine } from '../client/llm_engine.ts';
import { loadEngine } from '../client/load_engine.ts';
import type { SamplingParams } from '../client/sampling_params.ts';
import type { ConfigOf } from '../config/flag_types.ts';
import { progressLine } from './bench/progress.ts';
import { parseEngineArgs, printNotes } from './engine_args.ts';
import { loadProgress } from './load_progress.ts';
import { SAMPLING_FLAGS, samplingOf } from './sampling_flags.ts';

const RUN_FLAGS = {
  ...SAMPLING_FLAGS,
  raw: {
    kind: 'bool',
    cli: '--raw',
    default: false,
    group: 'own',
    doc: 'Complete the text as it is, without the chat template.',
  },
  stats: { kind: 'bool', cli: '--stats', default: true, group: 'own', doc: 'Tokens and times on stderr.' },
} as const;

const USAGE = [
  'Usage: tokenmill run [flags] "prompt"',
  '',
  'Answers one prompt, or what comes from standard input with - as prompt.',
];
const MAX_STDIN_BYTES = 32 * 1024 * 1024;

export async function runCommand(args: readonly string[]): Promise<number> {
  const parsed = await parseEngineArgs(args, {
    usage: USAGE,
    own: RUN_FLAGS,
    heading: 'This answer',
    shown: ['model', 'device'],
    modelFirst: false,
    maxPositionals: 1,
  });
  if (parsed === null) return 0;
  const { config, own, notes } = parsed;
  printNotes(notes);
  const text = await promptText(parsed.rest[0]);
  const line = progressLine(process.stderr);
  const llm = await loadEngine(config, loadProgress(line)).finally(() => line.clear());
  const stop = new AbortController();
  const onSignal = (): void => stop.abort();
  process.once('SIGINT', onSignal);
  try {
    return await answer(llm, own, text, stop.signal);
  } finally {
    process.off('SIGINT', onSignal);
    await llm.close();
  }
}

async function answer(
  llm: LLMEngine,
  own: ConfigOf<typeof RUN_FLAGS>,
  text: string,
  signal: AbortSignal,
): Promise<number> {
  const chat = !own.raw && llm.hasChatTemplate;
  const system = own.system === null ? [] : [{ role: 'system', content: own.system }];
  const prompt = chat
    ? llm.renderChat([...system, { role: 'user', content: text }], { addGenerationPrompt: true })
    : text;
  const params: SamplingParams = { ...llm.defaultSampling, ...samplingOf(own) };
  let last: GenerationDelta | null = null;
  let tokens = 0;
  const startMs = performance.now();
  for await (const delta of llm.generate({ id: 'run', prompt, addSpecialTokens: !chat, params, signal })) {
    last = delta;
    tokens += delta.tokenIds.length;
    process.stdout.write(delta.text);
  }
  process.stdout.write('\n');
  if (own.stats && last !== null) process.stderr.write(`${statsLine(last, tokens, performance.now() - startMs)}\n`);
  return last?.finishReason === 'abort' ? 130 : 0;
}

/** `15 prompt tokens in 12 ms, 8 tokens at 430.1 tokens/s, stop` */
export function statsLine(last: GenerationDelta, tokens: number, totalMs: number): string {
  const { scheduledMs, firstTokenMs, lastTokenMs } = last.timing;
  const prefillMs = firstTokenMs - scheduledMs;
  const rate = tokens > 1 && lastTokenMs > firstTokenMs ? (1000 * (tokens - 1)) / (lastTokenMs - firstTokenMs) : null;
  const cached = last.cachedTokens > 0 ? ` (${last.cachedTokens} cached)` : '';
  return [
    `${last.promptTokenIds.length} prompt tokens${cached} in ${prefillMs.toFixed(0)} ms`,
    `${tokens} tokens${rate === null ? '' : ` at ${rate.toFixed(1)} tokens/s`}`,
    `${(totalMs / 1000).toFixed(2)} s in all`,
    String(last.finishReason),
  ].join(', ');
}

async function promptText(argument: string | undefined): Promise<string> {
  if (argument !== undefined && argument !== '-') return argument;
  if (argument === undefined && process.stdin.isTTY) {
    throw new TokenmillError('flag_invalid', 'There is no prompt.', {
      remedy: 'tokenmill run "What is PagedAttention?"',
    });
  }
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of process.stdin) {
    bytes += (chunk as Buffer).length;
    if (bytes > MAX_STDIN_BYTES) throw new TokenmillError('flag_invalid', 'Standard input is longer than 32 MiB.');
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks).toString('utf8');
}
