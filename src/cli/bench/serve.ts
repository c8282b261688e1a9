/** `bench serve`: load on any OpenAI-compatible server, measured from outside. */
import { writeFile } from 'node:fs/promises';
import { Agent, request } from 'undici';
import { systemClock } from '../../base/clock.ts';
import { TokenmillError } from '../../base/errors.ts';
import { Rng } from '../../base/rng.ts';
import { parseCommandLine } from '../../config/command_line.ts';
import type { ConfigOf, FlagTable } from '../../config/flag_types.ts';
import { helpText } from '../../config/help.ts';
import { loadTokenizer } from '../../tokenizer/load_tokenizer.ts';
import { arrivalTimesS } from './arrivals.ts';
import { generateLoad, type LoadResult } from './load_generator.ts';
import { authorization, type RequestRecord, type Target, timeRequest } from './openai_stream.ts';
import { progressLine } from './progress.ts';
import { formatServe, parseGoodput, reportServe, type ServeReport, toJson } from './serve_report.ts';
import { asText, datasetWork, randomWork, requestBody, type WorkItem } from './workload.ts';

const MANY = 1_000_000;

export const SERVE_FLAGS = {
  baseUrl: {
    kind: 'string',
    cli: '--base-url',
    default: 'http://127.0.0.1:8000',
    group: 'target',
    doc: 'The server, without /v1.',
  },
  endpoint: {
    kind: 'choice',
    cli: '--endpoint',
    of: ['completions', 'chat'],
    default: 'completions',
    group: 'target',
    doc: 'Which API to call.',
  },
  model: {
    kind: 'string',
    cli: '--model',
    aliases: ['-m'],
    default: null,
    group: 'target',
    doc: 'Model name. Default: the first of /v1/models.',
  },
  apiKey: {
    kind: 'string',
    cli: '--api-key',
    env: 'OPENAI_API_KEY',
    default: null,
    group: 'target',
    doc: 'Sent as Bearer token.',
  },
  extraBody: {
    kind: 'json',
    cli: '--extra-body',
    default: null,
    group: 'target',
    doc: 'Fields added to every request.',
  },
  numPrompts: {
    kind: 'int',
    cli: '--num-prompts',
    default: 100,
    min: 1,
    max: MANY,
    group: 'load',
    doc: 'Requests to send.',
  },
  requestRate: {
    kind: 'float',
    cli: '--request-rate',
    default: null,
    min: 0,
    exclusiveMin: true,
    max: 1e6,
    group: 'load',
    doc: 'Requests a second, as a Poisson process. Default: all at once.',
  },
  maxConcurrency: {
    kind: 'int',
    cli: '--max-concurrency',
    default: null,
    min: 1,
    max: MANY,
    group: 'load',
    doc: 'Most requests in flight.',
  },
  numWarmups: {
    kind: 'int',
    cli: '--num-warmups',
    default: 1,
    min: 0,
    max: MANY,
    group: 'load',
    doc: 'Requests before the measurement, one after the other.',
  },
  seed: {
    kind: 'int',
    cli: '--seed',
    default: 0,
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    group: 'load',
    doc: 'Of prompts and arrivals.',
  },
  inputLen: {
    kind: 'int',
    cli: '--input-len',
    aliases: ['--random-input-len'],
    default: 256,
    min: 1,
    max: MANY,
    group: 'prompts',
    doc: 'Tokens of a random prompt, without the shared prefix.',
  },
  outputLen: {
    kind: 'int',
    cli: '--output-len',
    aliases: ['--random-output-len'],
    default: 128,
    min: 1,
    max: MANY,
    group: 'prompts',
    doc: 'Most tokens of an answer; exactly so many with --ignore-eos.',
  },
  rangeRatio: {
    kind: 'float',
    cli: '--range-ratio',
    aliases: ['--random-range-ratio'],
    default: 0,
    min: 0,
    max: 1,
    group: 'prompts',
    doc: 'Random lengths vary by this share.',
  },
  prefixLen: {
    kind: 'int',
    cli: '--prefix-len',
    aliases: ['--random-prefix-len'],
    default: 0,
    min: 0,
    max: MANY,
    group: 'prompts',
    doc: 'Tokens that all random prompts begin with.',
  },
  promptFormat: {
    kind: 'choice',
    cli: '--prompt-format',
    of: ['auto', 'ids', 'text'],
    default: 'auto',
    group: 'prompts',
    doc: 'Random prompts as token ids (exact) or as text. auto: ids for completions, text for chat.',
  },
  tokenizer: {
    kind: 'string',
    cli: '--tokenizer',
    default: null,
    group: 'prompts',
    doc: "Folder of the model's tokenizer: makes random text prompts exactly as long as asked.",
  },
  datasetPath: {
    kind: 'string',
    cli: '--dataset-path',
    default: null,
    group: 'prompts',
    doc: 'Prompts of a file instead: .jsonl or .json records, or a prompt a line.',
  },
  ignoreEos: {
    kind: 'bool',
    cli: '--ignore-eos',
    default: true,
    group: 'prompts',
    doc: 'Ask for answers of full length (a field that vLLM and Tokenmill know).',
  },
  temperature: {
    kind: 'float',
    cli: '--temperature',
    default: 0,
    min: 0,
    max: 100,
    group: 'prompts',
    doc: 'Sampling temperature.',
  },
  goodput: {
    kind: 'list',
    cli: '--goodput',
    default: [],
    group: 'report',
    doc: 'Limits in milliseconds, e.g. ttft:500 tpot:50; requests that keep all count as good.',
  },
  outputJson: { kind: 'string', cli: '--output-json', default: null, group: 'report', doc: 'Write the result here.' },
  saveDetailed: {
    kind: 'bool',
    cli: '--save-detailed',
    default: false,
    group: 'report',
    doc: 'Also write the record of every request.',
  },
} as const satisfies FlagTable;

const SERVE_GROUPS = { target: 'Server', load: 'Load', prompts: 'Prompts', report: 'Report' };
const USAGE = [
  'Usage: tokenmill bench serve [flags]',
  '',
  'Load on any OpenAI-compatible server, measured from outside.',
];

export type ServeFlags = ConfigOf<typeof SERVE_FLAGS>;

export interface ServeBench {
  readonly model: string;
  readonly report: ServeReport;
  readonly result: LoadResult;
}

async function firstModel(baseUrl: string, apiKey: string | null): Promise<string> {
  const fail = (why: string, cause?: unknown) =>
    new TokenmillError('flag_invalid', `--base-url ${baseUrl}: ${why}.`, {
      param: '--base-url',
      remedy: 'Start a server (`tokenmill serve`) or give the URL of one.',
      cause,
    });
  try {
    const { statusCode, body } = await request(`${baseUrl}/v1/models`, { headers: authorization(apiKey) });
    if (statusCode !== 200) throw fail(`/v1/models answers HTTP ${statusCode}: ${(await body.text()).slice(0, 200)}`);
    const { data } = (await body.json()) as { data?: { id?: string }[] };
    const id = data?.[0]?.id;
    if (typeof id !== 'string') throw fail('/v1/models names no model');
    return id;
  } catch (error) {
    throw error instanceof TokenmillError ? error : fail((error as Error).message || String(error), error);
  }
}

async function makeWork(flags: ServeFlags, count: number, rng: Rng): Promise<WorkItem[]> {
  if (flags.datasetPath !== null) return datasetWork(flags.datasetPath, count, flags.outputLen, rng);
  const { inputLen, outputLen, prefixLen, rangeRatio } = flags;
  const items = randomWork({ count, inputLen, outputLen, prefixLen, rangeRatio }, rng);
  const asIds = flags.promptFormat === 'ids' || (flags.promptFormat === 'auto' && flags.endpoint === 'completions');
  if (!asIds) return asText(items, flags.tokenizer === null ? null : await loadTokenizer(flags.tokenizer), rng);
  if (flags.endpoint === 'chat') {
    throw new TokenmillError(
      'flag_invalid',
      'Chat messages are text; --prompt-format ids does not fit --endpoint chat.',
      {
        param: '--prompt-format',
      },
    );
  }
  return items;
}

/** Runs the measurement; writes nothing. */
export async function measureServe(
  flags: ServeFlags,
  onProgress: (done: number, inFlight: number) => void,
): Promise<ServeBench> {
  const goodput = parseGoodput(flags.goodput);
  const baseUrl = flags.baseUrl.replace(/\/+$/, '').replace(/\/v1$/, '');
  const model = flags.model ?? (await firstModel(baseUrl, flags.apiKey));
  // One connection a request in flight: a shared one would queue in the client what should load the server.
  const dispatcher = new Agent({ connections: null, pipelining: 1 });
  const target: Target = { baseUrl, endpoint: flags.endpoint, apiKey: flags.apiKey, dispatcher };
  const fields = {
    model,
    temperature: flags.temperature,
    ...(flags.ignoreEos ? { ignore_eos: true } : {}),
    ...flags.extraBody,
  };
  const rng = new Rng(flags.seed);
  try {
    const work = await makeWork(flags, flags.numPrompts + flags.numWarmups, rng);
    const send = (item: WorkItem, lateMs: number): Promise<RequestRecord> =>
      timeRequest(target, requestBody(item, flags.endpoint, fields), item.promptTokens, systemClock, lateMs);
    for (const item of work.splice(0, flags.numWarmups)) {
      const { error } = await send(item, 0);
      if (error !== null) throw new TokenmillError('invalid_request', `The first request failed: ${error}`);
    }
    const arrivalsS = arrivalTimesS(work.length, flags.requestRate ?? Number.POSITIVE_INFINITY, rng);
    const plan = { arrivalsS, maxConcurrency: flags.maxConcurrency };
    const result = await generateLoad(
      plan,
      systemClock,
      (index, lateMs) => send(work[index] as WorkItem, lateMs),
      onProgress,
    );
    return { model, report: reportServe(result, goodput), result };
  } finally {
    await dispatcher.close();
  }
}

/** Exit code 1 when a request failed. */
export async function benchServe(args: readonly string[]): Promise<number> {
  const { values, help } = await parseCommandLine(args, SERVE_FLAGS);
  if (help !== null) {
    console.log(helpText({ usage: USAGE, table: SERVE_FLAGS, groups: SERVE_GROUPS }, help));
    return 0;
  }
  const progress = progressLine(process.stderr);
  const { model, report, result } = await measureServe(values, (done, inFlight) =>
    progress.show(`${done} of ${values.numPrompts} done, ${inFlight} in flight`),
  );
  progress.clear();
  process.stdout.write(`${formatServe(report, result.records).join('\n')}\n`);
  if (values.outputJson !== null) {
    const { apiKey: _secret, ...asked } = values;
    const json = toJson(report, { date: new Date().toISOString(), model_id: model, flags: asked });
    const details = values.saveDetailed ? { records: result.records } : {};
    await writeFile(values.outputJson, `${JSON.stringify({ ...json, ...details }, null, 2)}\n`);
  }
  return report.failed > 0 ? 1 : 0;
}
