/** Loads everything an AsyncLLM stands on: files, tokenizer and template on this thread, weights on the engine's. */
import { randomBytes } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { systemClock } from '../base/clock.ts';
import { TokenmillError } from '../base/errors.ts';
import { hash64 } from '../base/rng.ts';
import type { EngineConfig } from '../config/flags.ts';
import { loadChatTemplate, loadTokenizer } from '../tokenizer/load_tokenizer.ts';
import type { ChatTemplate, Tokenizer } from '../tokenizer/tokenizer.ts';
import type { EngineClient } from './engine_client.ts';
import type { LoadedEngine, LoadProgress } from './engine_thread.ts';
import { LLMEngine } from './llm_engine.ts';
import { type DownloadProgress, locateModel } from './model_source.ts';
import type { SamplingParams } from './sampling_params.ts';
import type { Notice } from './step_profile.ts';
import { ThreadClient } from './thread_client.ts';

export interface LoadEngineOptions {
  /** Run the engine on the calling thread, which is then busy during every step. For tests and scripts. */
  readonly inProcess?: boolean;
  readonly onDownload?: (progress: DownloadProgress) => void;
  readonly onLoad?: (progress: LoadProgress) => void;
  /** What the engine has to say later on, for a log. */
  readonly onNotice?: (notice: Notice) => void;
  readonly signal?: AbortSignal;
}

const MAX_TEMPLATE_BYTES = 1 << 20;

/** Throws what locating, reading and loading throw; nothing is held then. */
export async function loadEngine(config: EngineConfig, options: LoadEngineOptions = {}): Promise<LLMEngine> {
  const source = {
    revision: config.revision,
    ...(options.onDownload ? { onProgress: options.onDownload } : {}),
    ...(options.signal ? { signal: options.signal } : {}),
  };
  const { path: modelPath } = await locateModel(config.model, config, source);
  const tokenizerPath =
    config.tokenizer === null
      ? modelPath
      : (await locateModel(config.tokenizer, config, { ...source, revision: config.tokenizerRevision })).path;
  const text = loadText(config, tokenizerPath);
  // Not awaited yet: the engine's thread starts meanwhile, and its error is the more important one.
  text.catch(() => {});
  const { client, loaded } = await startClient(config, modelPath, options);
  try {
    const { tokenizer, chatTemplate } = await text;
    checkVocabulary(tokenizer, loaded);
    return assemble(config, client, loaded, tokenizer, chatTemplate);
  } catch (error) {
    await client.close();
    throw error;
  }
}

function assemble(
  config: EngineConfig,
  client: EngineClient,
  loaded: LoadedEngine,
  tokenizer: Tokenizer,
  chatTemplate: ChatTemplate | null,
): LLMEngine {
  const eosTokenId = tokenizer.eosTokenId ?? loaded.eosTokenIds[0] ?? null;
  return new LLMEngine({
    client,
    plan: loaded.plan,
    timings: loaded.timings,
    tokenizer,
    chatTemplate,
    defaultSampling: { ...loaded.generation, ...overriddenDefaults(config) },
    eosTokenId,
    extraEosTokenIds: loaded.eosTokenIds.filter((id) => id !== eosTokenId),
    clock: systemClock,
    drawSeed: seedSource(config.seed),
  });
}

async function startClient(
  config: EngineConfig,
  modelPath: string,
  options: LoadEngineOptions,
): Promise<{ client: EngineClient; loaded: LoadedEngine }> {
  const load = { config, modelPath };
  const { onLoad: onProgress = () => {}, onNotice = () => {} } = options;
  if (options.inProcess) {
    const [{ wireEngine }, { InProcessClient }] = await Promise.all([
      import('./engine_thread.ts'),
      import('./in_process_client.ts'),
    ]);
    const engine = await wireEngine(load, { onProgress, onNotice });
    const client = new InProcessClient(engine.core, {
      stuckLimitS: config.stuckLimit,
      onStep: () => engine.poll(),
      onClose: () => engine.close(),
    });
    return { client, loaded: engine.loaded };
  }
  const client = await ThreadClient.start({ load, onProgress, onNotice });
  return { client, loaded: client.loaded };
}

async function loadText(
  config: EngineConfig,
  folder: string,
): Promise<{ tokenizer: Tokenizer; chatTemplate: ChatTemplate | null }> {
  const override = config.chatTemplate === null ? undefined : await readTemplate(config.chatTemplate);
  const [tokenizer, chatTemplate] = await Promise.all([loadTokenizer(folder), loadChatTemplate(folder, override)]);
  return { tokenizer, chatTemplate };
}

/** A file's content, or the argument itself when it is a one-line template. */
async function readTemplate(pathOrTemplate: string): Promise<string> {
  if (/\{[{%#]/.test(pathOrTemplate)) return pathOrTemplate;
  const refuse = (why: string, cause?: unknown) =>
    new TokenmillError('flag_invalid', `--chat-template ${pathOrTemplate}: ${why}.`, {
      param: '--chat-template',
      cause,
    });
  try {
    if ((await stat(pathOrTemplate)).size > MAX_TEMPLATE_BYTES) throw refuse('the file is larger than 1 MiB');
    return await readFile(pathOrTemplate, 'utf8');
  } catch (error) {
    throw error instanceof TokenmillError ? error : refuse('is neither a file nor a template', error);
  }
}

function checkVocabulary(tokenizer: Tokenizer, { plan }: LoadedEngine): void {
  if (tokenizer.vocabSize <= plan.vocabSize) return;
  throw new TokenmillError(
    'tokenizer_invalid',
    `The tokenizer has ${tokenizer.vocabSize} tokens, the model's embedding only ${plan.vocabSize} rows.`,
    { remedy: 'Tokenizer and model do not belong together; check --tokenizer or download the model again.' },
  );
}

/** generation_config.json's keys that vLLM reads, and ours. */
const GENERATION_KEYS: Readonly<Record<string, keyof SamplingParams>> = {
  temperature: 'temperature',
  top_p: 'topP',
  top_k: 'topK',
  min_p: 'minP',
  repetition_penalty: 'repetitionPenalty',
  max_new_tokens: 'maxTokens',
};

function overriddenDefaults(config: EngineConfig): Partial<SamplingParams> {
  const defaults: Record<string, number> = {};
  for (const [key, value] of Object.entries(config.overrideGenerationConfig ?? {})) {
    const name = Object.hasOwn(GENERATION_KEYS, key) ? GENERATION_KEYS[key] : undefined;
    if (name === undefined || typeof value !== 'number') {
      throw new TokenmillError(
        'flag_invalid',
        `--override-generation-config: ${key} is not a sampling default with a number.`,
        {
          param: '--override-generation-config',
          remedy: `Known: ${Object.keys(GENERATION_KEYS).join(', ')}.`,
        },
      );
    }
    defaults[name] = value;
  }
  return defaults;
}

/** With an engine seed, request i without a seed gets the i-th hash of it; otherwise true randomness. */
function seedSource(seed: number | null): () => bigint {
  let drawn = 0n;
  if (seed !== null) return () => BigInt.asIntN(64, hash64(BigInt(seed), drawn++));
  return () => randomBytes(8).readBigInt64LE();
}
