/**
 * A server over everything that is real but the model: engine, scheduler, KV blocks, tokenizer and chat template of the
 * embedded model; the executor writes a scripted reply. Fast, and every block can be counted.
 */
import { fileURLToPath } from 'node:url';
import { systemClock } from '../../src/base/clock.ts';
import { InProcessClient } from '../../src/client/in_process_client.ts';
import { LLMEngine } from '../../src/client/llm_engine.ts';
import { FLAGS } from '../../src/config/flags.ts';
import { parseFlags } from '../../src/config/parse.ts';
import { resolve } from '../../src/config/resolve.ts';
import { plainCpus } from '../../src/config/topology.ts';
import { EngineCore } from '../../src/engine/engine_core.ts';
import type { Executor, ExecutorOutput, SchedulerOutput } from '../../src/engine/executor.ts';
import type { TokenLogprobs } from '../../src/engine/types.ts';
import type { ServerConfig } from '../../src/server/config.ts';
import { createServer, type Server } from '../../src/server/server.ts';
import { loadChatTemplate, loadTokenizer } from '../../src/tokenizer/load_tokenizer.ts';
import type { Tokenizer } from '../../src/tokenizer/tokenizer.ts';

export const MODEL_FOLDER = fileURLToPath(new URL('../../models/tokenmill-tiny', import.meta.url));
const EOS = 2;

const FACTS = {
  modelPath: MODEL_FOLDER,
  architecture: 'LlamaForCausalLM',
  vocabSize: 4096,
  maxPositionEmbeddings: 2048,
  checkpointDType: 'float32',
  linearElements: 1000,
  linearRows: 10,
  logitsElements: 100,
  logitsRows: 1,
  embeddingElements: 1000,
  vectorElements: 100,
  kv: { layers: 1, kvHeads: 1, headDim: 16 },
  scratchElementsPerToken: 100,
} as const;

const MACHINE = {
  totalMemoryBytes: 2 ** 33,
  availableMemoryBytes: 2 ** 32,
  cpus: plainCpus([0, 1]),
  cpuQuota: null,
  cacheFolder: '/nowhere',
  isaLevels: [],
} as const;

export interface Script {
  /** What the model "says" after any prompt, then eos. Choice i of n says it with `#i` in front. */
  readonly reply: string;
  /** Throws in place of the step, to see a dead engine. */
  readonly fail?: () => boolean;
}

/** Writes the script; logprobs are -0.5 for the chosen token, then -1, -2 ... for its neighbours. */
class ScriptedExecutor implements Executor {
  private readonly ids: Int32Array;
  private readonly script: Script;
  private output: ExecutorOutput = { tokenIds: new Int32Array(), logprobs: [], promptLogprobs: [], errors: [] };

  constructor(script: Script, tokenizer: Tokenizer) {
    this.script = script;
    this.ids = tokenizer.encode(script.reply, { addSpecialTokens: false });
  }

  submit(step: SchedulerOutput): void {
    if (this.script.fail?.()) throw new Error('scripted failure');
    const tokenIds = new Int32Array(step.sequences.length).fill(-1);
    const logprobs: (TokenLogprobs | null)[] = [];
    const promptLogprobs: (TokenLogprobs[] | null)[] = [];
    step.sequences.forEach((sequence, i) => {
      const { tokens, promptLength, tokensComputed, sampling, promptRowsFrom } = sequence;
      const reached = tokensComputed + (step.tokenCounts[i] ?? 0);
      let row: TokenLogprobs | null = null;
      if (reached === tokens.length) {
        const at = tokens.length - promptLength;
        const ids = sampling.eosTokenIds.length === 0 ? this.ids[at % this.ids.length] : this.ids[at];
        tokenIds[i] = ids ?? EOS;
        row = sampling.logprobs === null ? null : fakeLogprobs(tokenIds[i], sampling.logprobs);
      }
      logprobs.push(row);
      const rows: TokenLogprobs[] = [];
      if (sampling.promptLogprobs !== null) {
        for (let p = Math.max(promptRowsFrom, tokensComputed); p < Math.min(reached, promptLength - 1); p++) {
          rows.push(fakeLogprobs(tokens.data[p + 1] ?? 0, sampling.promptLogprobs));
        }
      }
      promptLogprobs.push(rows.length > 0 ? rows : null);
    });
    this.output = { tokenIds, logprobs, promptLogprobs, errors: step.sequences.map(() => null) };
  }

  collect(): ExecutorOutput {
    return this.output;
  }

  close(): void {}
}

function fakeLogprobs(id: number, count: number): TokenLogprobs {
  const k = count === -1 ? 4096 : count;
  const top = Array.from({ length: k }, (_, i) => (id + i) % 4096);
  return {
    tokenIds: [id, ...top],
    logprobs: [-0.5, ...top.map((_, i) => (i === 0 ? -0.5 : -i))],
    ranks: [1, ...top.map((_, i) => i + 1)],
  };
}

export interface Bench {
  readonly server: Server;
  readonly llm: LLMEngine;
  readonly core: EngineCore;
  readonly tokenizer: Tokenizer;
  /** Blocks that some sequence holds. */
  blocksInUse(): number;
  close(): Promise<void>;
}

export interface BenchOptions extends Partial<ServerConfig> {
  readonly script?: Script;
  /** Instead of the model's own chat template. */
  readonly chatTemplate?: string;
  /** Engine flags, as on the command line. */
  readonly flags?: readonly string[];
}

export async function bench({
  script = { reply: 'Hello there, this is a test.' },
  flags = [],
  chatTemplate: template,
  ...config
}: BenchOptions = {}): Promise<Bench> {
  const tokenizer = await loadTokenizer(MODEL_FOLDER);
  const chatTemplate = await loadChatTemplate(MODEL_FOLDER, template);
  const defaults = [
    '--model',
    MODEL_FOLDER,
    '--backend',
    'reference',
    '--max-model-len',
    '1024',
    '--served-model-name',
    'm',
  ];
  const parsed = parseFlags([...defaults, '--num-gpu-blocks-override', '512', ...flags], FLAGS, {
    env: {},
    file: null,
  });
  const plan = resolve(parsed.values, FACTS, MACHINE);
  const core = new EngineCore(plan, new ScriptedExecutor(script, tokenizer), systemClock);
  const client = new InProcessClient(core, { stuckLimitS: 60 });
  let seed = 0n;
  const llm = new LLMEngine({
    client,
    plan,
    timings: { inspectMs: 0, loadMs: 0, weightsMapped: false },
    tokenizer,
    chatTemplate,
    defaultSampling: {},
    eosTokenId: EOS,
    extraEosTokenIds: [],
    clock: systemClock,
    drawSeed: () => seed++,
  });
  const server = await createServer(llm, { version: '1.2.3', statsIntervalS: 3600, ...config });
  return {
    server,
    llm,
    core,
    tokenizer,
    blocksInUse: () => Math.round(core.scheduler.blocks.usage * plan.numBlocks),
    close: async () => {
      await server.app.close();
      await llm.close();
    },
  };
}

/** The `data:` payloads of a stream, `[DONE]` included. */
export function events(body: string): string[] {
  return body
    .split('\n\n')
    .filter((event) => event.startsWith('data: '))
    .map((event) => event.slice('data: '.length));
}

export function chunksOf(body: string): Record<string, unknown>[] {
  return events(body)
    .filter((event) => event !== '[DONE]')
    .map((event) => JSON.parse(event) as Record<string, unknown>);
}

/** Waits until `condition` holds; fails after five seconds. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  for (const start = Date.now(); !condition(); ) {
    if (Date.now() - start > 5000) throw new Error(`never happened: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
