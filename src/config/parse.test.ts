import { describe, expect, test } from 'vitest';
import { TokenmillError } from '../base/errors.ts';
import { parseHumanInt } from './coerce.ts';
import { COMPAT_FLAGS } from './compat_flags.ts';
import { FLAGS, GROUPS } from './flags.ts';
import { helpText } from './help.ts';
import { parseOptions } from './options.ts';
import { findConfigFile, parseFlags } from './parse.ts';

type Input = Partial<Parameters<typeof parseFlags>[2]>;

function parse(line: string | readonly string[], input: Input = {}) {
  const args = typeof line === 'string' ? line.split(' ').filter((word) => word !== '') : line;
  return parseFlags(args, FLAGS, { env: {}, file: null, ...input });
}

function refusal(line: string | readonly string[], input: Input = {}): string {
  try {
    parse(line, input);
  } catch (error) {
    expect(error).toBeInstanceOf(TokenmillError);
    expect((error as TokenmillError).code).toBe('flag_invalid');
    expect((error as TokenmillError).exitCode).toBe(2);
    return (error as TokenmillError).message;
  }
  throw new Error(`accepted: ${String(line)}`);
}

const ACCEPTED: readonly (readonly [string, Partial<Record<keyof typeof FLAGS, unknown>>])[] = [
  ['--port 9000', { port: 9000 }],
  ['--port=9000', { port: 9000 }],
  ['--max_model_len 2k', { maxModelLen: 2000 }],
  ['--max-model-len 2K', { maxModelLen: 2048 }],
  ['--max-model-len 25.6k', { maxModelLen: 25600 }],
  ['--max-model-len auto', { maxModelLen: null }],
  ['--max-model-len -1', { maxModelLen: null }],
  ['--kv-cache-memory-bytes 4G', { kvCacheMemoryBytes: 4 * 2 ** 30 }],
  ['--dtype half', { dtype: 'float16' }],
  ['-q int8', { quantization: 'int8' }],
  ['--enable-prefix-caching', { enablePrefixCaching: true }],
  ['--no-enable-prefix-caching', { enablePrefixCaching: false }],
  ['--disable-prefix-caching', { enablePrefixCaching: false }],
  ['--enable-prefix-caching=false', { enablePrefixCaching: false }],
  ['--no-disable-log-stats', { disableLogStats: false }],
  ['--api-key a b --port 1', { apiKey: ['a', 'b'], port: 1 }],
  ['--api-key a --api-key b', { apiKey: ['a', 'b'] }],
  ['--allowed-origins ["*","http://x"]', { allowedOrigins: ['*', 'http://x'] }],
  ['--hf-overrides {"a":{"b":1}}', { hfOverrides: { a: { b: 1 } } }],
  [
    '--hf-overrides.rope_parameters.rope_theta 5e5 --hf-overrides.x.y z',
    { hfOverrides: { rope_parameters: { rope_theta: 5e5 }, x: { y: 'z' } } },
  ],
  ['--hf-overrides.list+ 1 --hf-overrides.list+ two', { hfOverrides: { list: [1, 'two'] } }],
  ['--seed -5', { seed: -5 }],
  ['--gpu_memory_utilization 0.5', { gpuMemoryUtilization: 0.5 }],
  ['--device-memory-utilization 0.5', { gpuMemoryUtilization: 0.5 }],
  ['--tensor-parallel-size 1 -tp 1 --tokenizer-mode auto --port 5', { port: 5 }],
];

const REFUSED: readonly (readonly [string, RegExp])[] = [
  ['--max-num-seq 4', /Unknown flag --max-num-seq\. Did you mean --max-num-seqs\?/],
  ['--frobnicate', /Unknown flag --frobnicate\. See --help=all/],
  ['--port', /--port needs a value/],
  ['--port --host x', /--port needs a value/],
  ['--port 70000', /--port: 70000 is out of range \[0, 65535\]/],
  ['--port 8000.5', /--port: '8000.5' is not a whole number/],
  ['--port 1e3', /is not a whole number/],
  ['--max-model-len 1.5K', /--max-model-len: '1.5K' is not a whole number such as/],
  ['--max-model-len 0', /out of range/],
  ['--gpu-memory-utilization 0', /out of range \(0, 1\]/],
  ['--gpu-memory-utilization NaN', /is not a number/],
  ['--gpu-memory-utilization 1.1', /out of range/],
  ['--dtype int4', /'int4' is not one of auto, float32, bfloat16, float16/],
  ['--dtype constructor', /is not one of/],
  ['--enable-prefix-caching=maybe', /is neither true nor false/],
  ['--hf-overrides {', /is not JSON/],
  ['--hf-overrides [1]', /is not a JSON object/],
  ['--hf-overrides.__proto__.x 1', /is not a path of keys/],
  ['--port.x 1', /takes no dotted keys/],
  ['--api-key', /--api-key needs a value/],
  ['--tensor-parallel-size 2', /--tensor-parallel-size: only 1 is supported/],
  ['--enable-lora', /--enable-lora: LoRA adapters are not supported/],
  ['--ssl-cert-reqs 3', /'3' is not one of 0, 1, 2/],
  ['--rope-scaling {}', /was removed; use --hf-overrides/],
  ['--tokenizer-mode mistral', /only tokenizer\.json is read/],
];

describe('command line', () => {
  test.each(ACCEPTED)('%s', (line, expected) => {
    expect(parse(line).values).toMatchObject(expected);
  });

  test.each(REFUSED)('refused: %s', (line, message) => {
    expect(refusal(line)).toMatch(message);
  });

  test('defaults are those of the table', () => {
    const { values, positionals, notes, help } = parse('');
    for (const [key, flag] of Object.entries(FLAGS)) expect(values[key as keyof typeof FLAGS]).toEqual(flag.default);
    expect([positionals, notes, help]).toEqual([[], [], null]);
    expect(Object.isFrozen(values)).toBe(true);
  });

  test('positionals, the end of flags and standard input', () => {
    expect(parse('org/model --port 1 -').positionals).toEqual(['org/model', '-']);
    expect(parse('a -- --port b').positionals).toEqual(['a', '--port', 'b']);
    expect(parse('--served-model-name x y --port 1 model').positionals).toEqual(['model']);
  });

  test('help, plain and with a topic', () => {
    expect(parse('--help').help).toBe('');
    expect(parse('-h').help).toBe('');
    expect(parse('--help=scheduler').help).toBe('scheduler');
  });

  test('ignored and removed flags leave one line each; their values are not taken for models', () => {
    const parsed = parse(
      'm --swap-space 4 --enforce-eager --offload-backend x -O3 --no-async-scheduling --mm-processor-cache-gb=3',
    );
    expect(parsed.positionals).toEqual(['m']);
    expect(parsed.notes).toEqual([
      'warning: --swap-space was removed from vLLM and has no effect',
      'ignored: --enforce-eager has no effect on this engine',
      'ignored: --offload-backend has no effect on this engine',
      'ignored: -O3 has no effect on this engine',
      'ignored: --mm-processor-cache-gb has no effect on this engine',
    ]);
    expect(parse('--no-enable-lora').notes).toEqual([]);
  });
});

describe('precedence', () => {
  const env = { TOKENMILL_PORT: '2', TOKENMILL_HOST: 'env', VLLM_API_KEY: 'k', TOKENMILL_SEED: '' };
  const file = { port: 3, host: 'file', 'max-num-seqs': '1k', enable_prefix_caching: false, 'api-key': ['f'] };

  test('command line, environment, file, default', () => {
    const { values, sources } = parse('--port 1', { env, file });
    expect(values).toMatchObject({
      port: 1,
      host: 'env',
      apiKey: ['k'],
      maxNumSeqs: 1000,
      enablePrefixCaching: false,
      seed: null,
    });
    expect(sources).toMatchObject({ port: 'command line', host: 'environment', maxNumSeqs: 'file', seed: 'default' });
  });

  test('a file with an unknown key or a wrong value is refused', () => {
    expect(refusal('', { file: { prot: 1 } })).toMatch(
      /Unknown flag --prot in the config file\. Did you mean --port\?/,
    );
    expect(refusal('', { file: { port: 'x' } })).toMatch(/--port: 'x' is not a whole number/);
    expect(refusal('', { file: { port: true } })).toMatch(/--port/);
    expect(refusal('', { file: { 'enable-lora': true } })).toMatch(/LoRA/);
    expect(parse('', { file: { 'disable-prefix-caching': true, 'swap-space': 4 } })).toMatchObject({
      values: { enablePrefixCaching: false },
      notes: ['warning: --swap-space was removed from vLLM and has no effect'],
    });
  });

  test('--config is found wherever it stands', () => {
    expect(findConfigFile(['m', '--config', 'a.yaml'])).toBe('a.yaml');
    expect(findConfigFile(['--config=b.yaml'])).toBe('b.yaml');
    expect(findConfigFile(['--', '--config', 'c'])).toBeNull();
    expect(() => findConfigFile(['--config'])).toThrow(/needs a file/);
    expect(parse('--config a.yaml model').positionals).toEqual(['model']);
  });

  test('options of the library: same checks, environment under them', () => {
    expect(parseOptions({ port: 7, maxModelLen: '2K', seed: undefined }, FLAGS, env)).toMatchObject({
      port: 7,
      maxModelLen: 2048,
      host: 'env',
    });
    expect(() => parseOptions({ maxModelLn: 7 } as object, FLAGS, {})).toThrow(
      /Unknown option maxModelLn\. Did you mean maxModelLen\?/,
    );
    expect(() => parseOptions({ dtype: 'x' }, FLAGS, {})).toThrow(/is not one of/);
  });
});

describe('the tables', () => {
  test('every flag has a group with a heading and a spelling of its own', () => {
    const names = Object.values(FLAGS).flatMap((flag) => [flag.cli, ...('aliases' in flag ? flag.aliases : [])]);
    expect(new Set(names).size).toBe(names.length);
    for (const flag of Object.values(FLAGS)) expect(Object.keys(GROUPS)).toContain(flag.group);
  });

  test('no flag is both supported and without effect', () => {
    const names = new Set<string>(
      Object.values(FLAGS).flatMap((flag) => [flag.cli, ...('aliases' in flag ? flag.aliases : [])]),
    );
    const compat = COMPAT_FLAGS.flatMap((flag) => flag.names).map((name) =>
      name.startsWith('-') ? name : `--${name}`,
    );
    expect(compat.filter((name) => names.has(name))).toEqual([]);
    expect(new Set(compat).size).toBe(compat.length);
  });

  test('help names every flag, a group, one flag', () => {
    const options = { usage: ['Usage: x'], table: FLAGS, groups: GROUPS, shown: ['model'] };
    for (const flag of Object.values(FLAGS)) expect(helpText(options, 'all')).toContain(`  ${flag.cli}`);
    expect(helpText(options, '')).not.toContain('--max-num-seqs');
    expect(helpText(options, 'scheduler')).toContain('--max-num-seqs');
    expect(helpText(options, 'max_num_seqs')).toMatch(/--max-num-seqs N\n/);
    expect(helpText(options, 'swap-space')).toContain('was removed from vLLM');
    expect(() => helpText(options, 'scheduling')).toThrow(/There is no help on scheduling/);
  });
});

test.each([
  ['0', 0],
  ['1k', 1000],
  ['1K', 1024],
  ['25.6k', 25600],
  ['1.5m', 1500000],
  ['2G', 2 ** 31],
  ['1.0001k', null],
  ['1.5K', null],
  ['1.5', null],
  ['', null],
  ['k', null],
  ['1kk', null],
  ['9999999999999999', null],
  ['-3', -3],
])('human integer %s', (text, value) => {
  expect(parseHumanInt(text)).toBe(value);
});
