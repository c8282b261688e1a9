import { describe, expect, it } from 'vitest';
import { serveArgs } from './serve_args.ts';

function read(command: string, args: string) {
  const errors: string[] = [];
  const notices: string[] = [];
  const words = (text: string) => text.split(' ').filter(Boolean);
  const served = serveArgs(words(command), words(args), {
    error: (text) => errors.push(text),
    notice: (text) => notices.push(text),
  });
  return { ...served, args: served.args.join(' '), names: served.names.join(' '), errors, notices: notices.length };
}

const nothing = { model: null, names: '', args: '', errors: [], notices: 0 };

describe('arguments of servers', () => {
  it.each([
    ['', '', nothing],
    ['vllm serve owner/m', '--seed 1', { ...nothing, model: 'owner/m', args: '--seed 1' }],
    ['/usr/bin/vllm serve', 'owner/m --seed=1', { ...nothing, model: 'owner/m', args: '--seed=1' }],
    ['tokenmill serve', '-m owner/m', { ...nothing, model: 'owner/m' }],
    ['python3 -m vllm.entrypoints.openai.api_server', '--model x', { ...nothing, model: 'x' }],
    [
      '/opt/bin/python3.12 -m huggingfaceserver',
      '--model_id=x --model_revision=r',
      { ...nothing, model: 'x', args: '--revision=r' },
    ],
    ['', '--max_length 2048 --max-model-len=4k', { ...nothing, args: '--max-model-len 2048 --max-model-len=4k' }],
    ['', '--served-model-name a b --seed 1', { ...nothing, names: 'a b', args: '--seed 1' }],
    ['', '--model_name=a --served-model-name=b', { ...nothing, names: 'b' }],
    ['', '--model a --model_dir=b', { ...nothing, model: 'b' }],
    ['', '--port 8080 --host=0.0.0.0 --http_port 1', { ...nothing, notices: 3 }],
    ['', '--backend vllm', { ...nothing, notices: 1 }],
    ['', '--backend=reference', { ...nothing, args: '--backend=reference' }],
    [
      '',
      '--enforce-eager --tensor-parallel-size 1',
      { ...nothing, args: '--enforce-eager --tensor-parallel-size 1', notices: 1 },
    ],
  ] as const)('%s | %s', (command, args, expected) => {
    expect(read(command, args)).toEqual(expected);
  });

  it.each([
    ['bash -c', 'vllm serve x', 'shell script'],
    ['/bin/sh', '', 'shell script'],
    ['vllm serve a', '--model b', 'two models: a and b'],
    ['', '--no-such-flag 1', 'Unknown flag --no-such-flag'],
    ['', '--seed 1 stray', '"stray" is not a flag'],
    ['', '--seed one', "'one' is not a whole number"],
    ['', '--config f.yaml', '--config is not supported'],
    ['', '--api_key k', '--api_key is not supported'],
    ['', '--__proto__ x', 'is not a flag'],
    ['', '--port', null],
  ] as const)('%s | %s: %s', (command, args, error) => {
    const { errors } = read(command, args);
    if (error === null) expect(errors).toEqual([]);
    else expect(errors.join('\n')).toContain(error);
  });
});
