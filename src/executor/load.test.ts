import { cpSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { codeOf } from '../base/testdata/code_of.ts';
import type { MachineFacts } from '../config/facts.ts';
import { FLAGS } from '../config/flags.ts';
import { parseOptions } from '../config/options.ts';
import type { EnginePlan } from '../config/plan.ts';
import { resolve } from '../config/resolve.ts';
import { EngineCore } from '../engine/engine_core.ts';
import { makeRequest } from '../engine/testdata/fake_executor.ts';
import { inspectModel, loadExecutor } from './load.ts';

const LLAMA = new URL('../../test/golden/models/llama', import.meta.url).pathname;
const scratch = mkdtempSync(join(tmpdir(), 'tokenmill-load-'));
afterAll(() => rmSync(scratch, { recursive: true }));

const MACHINE: MachineFacts = {
  totalMemoryBytes: 2 ** 34,
  availableMemoryBytes: 2 ** 33,
  cpus: [
    { cpu: 0, core: 0, node: 0 },
    { cpu: 1, core: 1, node: 0 },
  ],
  cpuQuota: null,
  cacheFolder: '/nowhere',
  isaLevels: [],
};

function makePlan(folder: string, options: Readonly<Record<string, unknown>> = {}): EnginePlan {
  const config = parseOptions({ model: folder, backend: 'reference', maxNumSeqs: 4, ...options }, FLAGS, {});
  return resolve(config, inspectModel(folder), MACHINE);
}

/** A copy of the golden llama that `damage` then spoils. */
function spoilt(name: string, damage: (folder: string) => void): string {
  const folder = join(scratch, name);
  cpSync(LLAMA, folder, { recursive: true });
  damage(folder);
  return folder;
}

describe('inspectModel', () => {
  test('counts what the checkpoint holds', () => {
    const [hidden, kv, intermediate, vocab, layers] = [64, 32, 96, 512, 2];
    const layer = (hidden + 2 * kv) * hidden + hidden * hidden + 3 * hidden * intermediate;
    expect(inspectModel(LLAMA)).toMatchObject({
      modelPath: LLAMA,
      architecture: 'LlamaForCausalLM',
      vocabSize: vocab,
      maxPositionEmbeddings: 256,
      checkpointDType: 'bfloat16',
      linearElements: layers * layer + vocab * hidden,
      embeddingElements: vocab * hidden,
      kv: { layers, kvHeads: 2, headDim: 16 },
    });
  });

  test('names what is wrong before a byte of weights is read', () => {
    const config = (folder: string, patch: Record<string, unknown>) => {
      const path = join(folder, 'config.json');
      writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), ...patch }));
    };
    expect(codeOf(() => inspectModel(join(scratch, 'nowhere')))).toBe('model_files_missing');
    const architecture = spoilt('architecture', (f) => config(f, { architectures: ['Llama99ForCausalLM'] }));
    expect(codeOf(() => inspectModel(architecture))).toBe('architecture_unknown');
    const vocabulary = spoilt('vocabulary', (f) => config(f, { vocab_size: 511 }));
    expect(codeOf(() => inspectModel(vocabulary))).toBe('weights_invalid');
    const short = spoilt('short', (f) => truncateSync(join(f, 'model.safetensors'), 5000));
    expect(codeOf(() => inspectModel(short))).toBe('model_files_invalid');
    const none = spoilt('none', (f) => rmSync(join(f, 'model.safetensors')));
    expect(codeOf(() => inspectModel(none))).toBe('model_files_missing');
  });

  test('a context that no memory holds costs nothing to inspect', () => {
    const folder = spoilt('long', (f) => {
      const path = join(f, 'config.json');
      writeFileSync(path, readFileSync(path, 'utf8').replace('256', String(2 ** 23)));
    });
    expect(inspectModel(folder)).toMatchObject({ maxPositionEmbeddings: 2 ** 23, vectorElements: expect.any(Number) });
    expect(inspectModel(folder).vectorElements).toBeLessThan(100_000);
  });
});

test('a plan becomes an executor whose greedy tokens are the golden ones', () => {
  const golden = JSON.parse(readFileSync(join(LLAMA, 'golden.json'), 'utf8')) as {
    readonly prompts: readonly { readonly ids: number[]; readonly greedy: number[] }[];
  };
  const plan = makePlan(LLAMA, { dtype: 'float32', maxNumBatchedTokens: 48 });
  const progress: number[] = [];
  const executor = loadExecutor(plan, { onProgress: (done, total) => progress.push(done / total) });
  expect(progress.at(-1)).toBe(1);
  const core = new EngineCore(plan, executor, { now: () => 0 });
  const requests = golden.prompts.map((p, i) => makeRequest(`${i}`, Int32Array.from(p.ids), { maxTokens: 24 }));
  core.apply({ kind: 'add', requests });
  const tokens = golden.prompts.map((): number[] => []);
  while (core.hasWork()) {
    for (const output of core.step().outputs) tokens[Number(output.id)]?.push(...output.newTokenIds);
  }
  expect(tokens).toEqual(golden.prompts.map((p) => p.greedy));
  executor.close();
});

test('layers of the checkpoint that config.json does not count are named', () => {
  const folder = spoilt('shallow', (f) => {
    const path = join(f, 'config.json');
    const config = JSON.parse(readFileSync(path, 'utf8'));
    writeFileSync(path, JSON.stringify({ ...config, num_hidden_layers: 1 }));
  });
  const notes: string[] = [];
  loadExecutor(makePlan(folder), { onUnread: (note) => notes.push(note) }).close();
  expect(notes).toEqual([expect.stringMatching(/^Nothing reads model\.layers\.1\..* more of the checkpoint\.$/)]);
});

test('no weights of a damaged file are served', () => {
  const folder = spoilt('nan', (f) => {
    const path = join(f, 'model.safetensors');
    const bytes = readFileSync(path);
    bytes.writeUInt16LE(0x7fc0, bytes.length - 2);
    writeFileSync(path, bytes);
  });
  expect(codeOf(() => loadExecutor(makePlan(folder)))).toBe('weights_invalid');
});
