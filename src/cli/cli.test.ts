/** The built CLI as child processes; `npm test` has brought dist/ up to date. */
import { type ChildProcess, spawn } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { cpuIsaLevels } from '../executor/backends.ts';

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const LLAMA = fileURLToPath(new URL('../../test/golden/models/llama', import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), 'tokenmill-cli-'));
afterAll(() => rmSync(scratch, { recursive: true }));

interface Result {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function start(args: readonly string[], env: Readonly<Record<string, string>> = {}): ChildProcess {
  const clean = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(TOKENMILL|VLLM|HF)_/.test(name)));
  return spawn(process.execPath, [MAIN, ...args], { env: { ...clean, ...env }, cwd: scratch });
}

function finished(child: ChildProcess, input = ''): Promise<Result> {
  let stdout = '';
  let stderr = '';
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  child.stdin!.end(input);
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, stdout, stderr })));
}

function tokenmill(args: readonly string[], input = '', env: Readonly<Record<string, string>> = {}): Promise<Result> {
  return finished(start(args, env), input);
}

const REFERENCE = ['--backend', 'reference', '--max-model-len', '256', '--max-num-seqs', '2'];

describe('usage', () => {
  test('help of the program, of every command, of a group, of a flag', async () => {
    const { code, stdout } = await tokenmill(['--help']);
    expect(code).toBe(0);
    const commands = [...stdout.matchAll(/^ {2}([a-z]+) {2,}/gm)]
      .map(([, name]) => name!)
      .filter((name) => name !== 'version');
    const fleet = [
      'up',
      'down',
      'get',
      'describe',
      'logs',
      'diff',
      'apply',
      'delete',
      'scale',
      'rollout',
      'simulate',
      'upgrade',
    ];
    expect(commands).toEqual(['serve', 'chat', 'run', 'pull', 'plan', 'doctor', 'verify', 'bench', ...fleet]);
    for (const name of commands) {
      const help = await tokenmill([name, '--help']);
      expect([name, help.code, help.stderr]).toEqual([name, 0, '']);
      expect(help.stdout).toMatch(new RegExp(`[Uu]sage:? +tokenmill ${name}|tokenmill ${name}`));
    }
    expect((await tokenmill(['serve', '--help=cache'])).stdout).toContain('--gpu-memory-utilization');
    expect((await tokenmill(['serve', '--help=max-num-seqs'])).stdout).toMatch(/^ {2}--max-num-seqs N/);
    expect((await tokenmill(['version'])).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  test.each([
    [['serv'], 'Unknown command "serv". Did you mean serve?'],
    [['serve', '--max-num-seq', '4'], 'Unknown flag --max-num-seq. Did you mean --max-num-seqs?'],
    [['serve', '--port', '99999'], '--port: 99999 is out of range'],
    [['serve', '--served-model-name', 'a', 'model'], 'Write the model first'],
    [['serve', 'a', '--model', 'b'], 'Two models are named'],
    [['serve', 'a', 'b'], 'Unexpected argument "b"'],
    [['serve', '--config', 'absent.yaml'], '--config absent.yaml: cannot be read'],
    [['verify'], 'verify takes one folder'],
    [['pull'], 'There is no model to pull'],
  ])('%j is refused with status 2', async (args, message) => {
    const { code, stdout, stderr } = await tokenmill(args);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toContain(`error: `);
    expect(stderr).toContain(message);
    expect(stderr.trim().split('\n')).toHaveLength(1);
  });

  test('a config file and the environment reach the plan', async () => {
    const config = join(scratch, 'c.yaml');
    writeFileSync(config, 'backend: reference\nmax-num-seqs: 7\nmax_model_len: 1k\n');
    const { code, stdout } = await tokenmill(['plan', '--json', '--config', config, '--max-num-seqs=9'], '', {
      TOKENMILL_BLOCK_SIZE: '32',
    });
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ backend: 'reference', maxNumSeqs: 9, maxModelLen: 1000, blockSize: 32 });
  });
});

describe('plan', () => {
  test('a table with reasons', async () => {
    const { code, stdout } = await tokenmill(['plan', ...REFERENCE]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^architecture +LlamaForCausalLM$/m);
    expect(stdout).toMatch(/^max_model_len +256 +--max-model-len$/m);
    expect(stdout).toMatch(/^= needed +[\d.]+ [KMG]iB$/m);
  });

  test('what does not fit has an exit status of its own and names the cure', async () => {
    const { code, stderr } = await tokenmill(['plan', ...REFERENCE, '--kv-cache-memory-bytes', '1k']);
    expect(code).toBe(71);
    expect(stderr).toMatch(/--kv-cache-memory-bytes \d+ would fit\. \(out_of_memory\)/);
  });
});

describe('run', () => {
  test('the answer on stdout, statistics on stderr', async () => {
    const { code, stdout, stderr } = await tokenmill([
      'run',
      ...REFERENCE,
      '-t',
      '0',
      'What is the capital of France?',
    ]);
    expect([code, stdout]).toEqual([0, 'The capital of France is Paris.\n']);
    expect(stderr).toMatch(/^15 prompt tokens in \d+ ms, 8 tokens at [\d.]+ tokens\/s, [\d.]+ s in all, stop\n$/);
  });

  test('a prompt from standard input, without the template', async () => {
    const { code, stdout, stderr } = await tokenmill(
      ['run', ...REFERENCE, '--raw', '--temperature=0', '--max-tokens=3', '--no-stats', '-'],
      'Once upon a',
    );
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/^ \w/);
  });

  test('bad values, missing models', async () => {
    expect(await tokenmill(['run', ...REFERENCE, '-t', '3', 'x'])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('temperature must be in [0, 2]'),
    });
    expect(await tokenmill(['run', '-m', './absent', 'x'])).toMatchObject({
      code: 66,
      stderr: expect.stringContaining('absent does not exist'),
    });
  });
});

test('chat: an answer, commands, statistics', async () => {
  const { code, stdout, stderr } = await tokenmill(
    ['chat', ...REFERENCE, '-t', '0'],
    'What is the capital of France?\n/nonsense\n/system Think.\n/system\n/exit\nnever read\n',
  );
  expect(code).toBe(0);
  expect(stdout).toContain('The capital of France is Paris.\n');
  expect(stdout).toContain('There is no command /nonsense.');
  expect(stdout).toContain('Think.\n');
  expect(stderr).toMatch(/\[15 prompt tokens in .* stop\]/);
});

describe('verify', () => {
  test('agreement', async () => {
    const { code, stdout } = await tokenmill(['verify', LLAMA, '--backend', 'reference']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^all .* 100\.0%$/m);
    expect(stdout).toMatch(/passed$/m);
  });

  test('disagreement has exit status 1', async () => {
    const folder = join(scratch, 'wrong');
    cpSync(LLAMA, folder, { recursive: true });
    const config = JSON.parse(readFileSync(join(LLAMA, 'config.json'), 'utf8')) as Record<string, unknown>;
    writeFileSync(join(folder, 'wrong.json'), JSON.stringify({ ...config, rms_norm_eps: 0.1 }));
    const { code, stdout } = await tokenmill([
      'verify',
      folder,
      '--backend',
      'reference',
      '--config-file',
      'wrong.json',
    ]);
    expect(code).toBe(1);
    expect(stdout).toMatch(/FAILED: max abs logit error/);
  });
});

test('doctor reports as JSON; its exit status says whether something is wrong', async () => {
  const { code, stdout } = await tokenmill([
    'doctor',
    '--json',
    '--no-measure',
    '--download-dir',
    join(scratch, 'hub'),
  ]);
  const report = JSON.parse(stdout) as {
    problems: string[];
    native: unknown;
    cacheWritable: boolean;
    physicalCores: number;
  };
  expect(code).toBe(report.problems.length === 0 ? 0 : 1);
  expect(report.native !== null).toBe(cpuIsaLevels().length > 0);
  expect(report).toMatchObject({ cacheWritable: true });
  expect(report.physicalCores).toBeGreaterThan(0);
});

describe('serve', () => {
  const children: ChildProcess[] = [];
  const sockets: Server[] = [];
  afterEach(() => {
    for (const child of children.splice(0)) child.kill('SIGKILL');
    for (const socket of sockets.splice(0)) socket.close();
  });

  /** Starts a server on a free port; resolves once it says its URL. */
  async function serve(
    args: readonly string[],
  ): Promise<{ url: string; child: ChildProcess; done: Promise<Result>; banner: string }> {
    const child = start(['serve', ...REFERENCE, '--port', '0', ...args]);
    children.push(child);
    const done = finished(child);
    const banner = await new Promise<string>((resolve, reject) => {
      let text = '';
      child.stderr!.on('data', (chunk: string) => {
        text += chunk;
        if (text.includes('Stop: Ctrl-C')) resolve(text);
      });
      child.on('close', () => reject(new Error(`the server ended: ${text}`)));
    });
    return { url: /at (http:\S+)/.exec(banner)![1]!, child, done, banner };
  }

  test('says where it is, answers, and ends on SIGTERM with status 0', async () => {
    const { url, child, done, banner } = await serve([
      'tokenmill-tiny',
      '--served-model-name',
      'm',
      'n',
      '--swap-space',
      '4',
    ]);
    expect(banner).toContain(`curl ${url}/v1/chat/completions`);
    expect(banner).toContain(`${url}/docs`);
    expect(banner).not.toContain('WARNING');
    const models = (await (await fetch(`${url}/v1/models`)).json()) as { data: { id: string }[] };
    expect(models.data.map(({ id }) => id)).toEqual(['m', 'n']);
    const answer = await fetch(`${url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ messages: [{ role: 'user', content: 'What is the capital of France?' }], temperature: 0 }),
    });
    expect(await answer.json()).toMatchObject({
      choices: [{ message: { content: 'The capital of France is Paris.' } }],
    });
    child.kill('SIGTERM');
    const { code, stdout } = await done;
    expect(code).toBe(0);
    const log = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { msg: string });
    expect(log.some(({ msg }) => msg.includes('--swap-space was removed'))).toBe(true);
  });

  test('a second signal ends it at once', async () => {
    const { url, child, done } = await serve(['--shutdown-timeout', '600']);
    const stuck = fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ prompt: 'a', max_tokens: 250, ignore_eos: true, stream: true }),
    });
    await (await stuck).body!.getReader().read();
    child.kill('SIGTERM');
    await new Promise((resolve) => setTimeout(resolve, 50));
    child.kill('SIGTERM');
    expect((await done).code).toBe(143);
  });

  test('a port in use is told before loading', async () => {
    const socket = createServer();
    sockets.push(socket);
    const port = await new Promise<number>((resolve) => {
      socket.listen(0, '127.0.0.1', () => resolve((socket.address() as { port: number }).port));
    });
    const { code, stderr } = await tokenmill(['serve', ...REFERENCE, '--port', String(port)]);
    expect(code).toBe(69);
    expect(stderr).toContain(`Port ${port} on 127.0.0.1 is in use`);
  });

  test('an open host without a key is warned about, with a key it is not', async () => {
    expect((await serve(['--host', '0.0.0.0'])).banner).toContain('THIS SERVER IS OPEN TO THE NETWORK');
    expect((await serve(['--host', '0.0.0.0', '--api-key', 'k'])).banner).not.toContain('OPEN TO THE NETWORK');
  });
});
