/** Starts a supervisor of fake replicas as a process of its own, asks it, loads it, kills it. Real gateway, real sockets. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { findMembers, signalProcess } from '../../src/fleet/supervisor/process_identity.ts';
import type { ReplicaRow, ServiceRow } from '../../src/fleet/supervisor/views.ts';

const RUNNER = fileURLToPath(new URL('run_supervisor.mjs', import.meta.url));

export interface Reply {
  readonly status: number;
  /** The stream or the body came to its proper end. */
  readonly complete: boolean;
  readonly text: string;
  readonly ms: number;
}

export class TestFleet {
  readonly folder = mkdtempSync(join(tmpdir(), 'tm-fleet-'));
  readonly stateDir = join(this.folder, 'state');
  port = 0;
  private supervisor: ChildProcess | null = null;
  private output = '';

  /** @param models the `models` of the short form, as JSON; `objects`: further documents */
  async start(models: readonly object[], objects: readonly object[] = []): Promise<void> {
    if (this.port === 0) this.port = await freePort();
    await this.startSupervisor([this.write(models, objects)]);
    await this.until(
      'the gateway',
      async () => (await this.get<{ gateway: string | null }>('/v1/status')).gateway !== null,
    );
  }

  write(models: readonly object[], objects: readonly object[] = []): string {
    const path = join(this.folder, 'fleet.yaml');
    const documents = [{ models, gateway: { port: this.port } }, ...objects];
    writeFileSync(path, documents.map((document) => JSON.stringify(document, null, 2)).join('\n---\n'));
    return path;
  }

  /** Waits until its API answers. */
  async startSupervisor(
    files: readonly string[],
    { takeOver = false }: { readonly takeOver?: boolean } = {},
  ): Promise<number> {
    const args = [RUNNER, this.stateDir, ...(takeOver ? ['--take-over'] : []), ...files];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.output += text;
    });
    this.supervisor = child;
    await this.until('the supervisor to answer', async () => {
      if (child.exitCode !== null) throw new Error(`the supervisor ended:\n${this.output}`);
      return (await this.get<{ pid: number }>('/v1/status').catch(() => null))?.pid === child.pid;
    });
    return child.pid as number;
  }

  log(): string {
    return this.output;
  }

  async killSupervisor(): Promise<void> {
    const child = this.supervisor;
    if (child === null) return;
    this.supervisor = null;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await gone;
  }

  async get<T>(path: string): Promise<T> {
    return this.ask<T>('GET', path);
  }

  async post<T>(path: string, body: unknown = {}): Promise<T> {
    return this.ask<T>('POST', path, body);
  }

  async apply(models: readonly object[]): Promise<void> {
    const file = this.write(models);
    await this.post('/v1/apply', { files: [{ file, text: readFileSync(file, 'utf8') }], prune: true });
  }

  async service(): Promise<ServiceRow> {
    const { services } = await this.get<{ services: ServiceRow[] }>('/v1/services');
    return services[0] as ServiceRow;
  }

  async replicas(): Promise<ReplicaRow[]> {
    return (await this.get<{ replicas: ReplicaRow[] }>('/v1/replicas')).replicas;
  }

  async ready(count: number, timeoutMs = 15_000): Promise<void> {
    await this.until(`${count} ready replicas`, async () => (await this.service())?.ready === count, timeoutMs);
  }

  async chat(body: object = {}): Promise<Reply> {
    const begin = performance.now();
    const done = (status: number, complete: boolean, text: string): Reply => ({
      status,
      complete,
      text,
      ms: performance.now() - begin,
    });
    const asked = { model: 'm', messages: [{ role: 'user', content: 'hi' }], ...body } as { stream?: boolean };
    let text = '';
    let status = 0;
    try {
      const response = await fetch(`http://127.0.0.1:${this.port}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(asked),
      });
      status = response.status;
      const decoder = new TextDecoder();
      for await (const piece of response.body as ReadableStream<Uint8Array>)
        text += decoder.decode(piece, { stream: true });
      const complete =
        asked.stream === true ? text.includes('data: [DONE]') && !text.includes('"error"') : text.includes('"usage"');
      return done(status, complete && status === 200, text);
    } catch (error) {
      return done(status, false, `${text}\n${String(error)} ${String((error as Error).cause ?? '')}`);
    }
  }

  /** `count` requests at once, each again and again, until told to stop; gives all answers. */
  load(count: number, body: object = {}): () => Promise<Reply[]> {
    let isRunning = true;
    const replies: Reply[] = [];
    const workers = Array.from({ length: count }, async () => {
      while (isRunning) replies.push(await this.chat(body));
    });
    return async () => {
      isRunning = false;
      await Promise.all(workers);
      return replies;
    };
  }

  async until(what: string, holds: () => Promise<boolean>, timeoutMs = 15_000): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    while (!(await holds())) {
      if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms for ${what}\n${await this.evidence()}`);
      await sleep(25);
    }
  }

  /** Nothing of it is left when this resolves. */
  async remove(): Promise<void> {
    await this.killSupervisor();
    if (existsSync(this.stateDir)) {
      // More than once: of two with one name, as a gateway and its successor are, one is found at a time.
      for (let left = findMembers(this.stateDir); left.size > 0; left = findMembers(this.stateDir)) {
        for (const process of left.values()) signalProcess(process, 'SIGKILL', true);
        await sleep(10);
      }
    }
    rmSync(this.folder, { recursive: true, force: true });
  }

  private async evidence(): Promise<string> {
    const replicas = await this.replicas().catch((error: unknown) => String(error));
    const service = await this.service().catch((error: unknown) => String(error));
    const why = await this.get<{ decision: unknown }>('/v1/describe?service=m').catch((error: unknown) => ({
      decision: String(error),
    }));
    return [
      JSON.stringify(service),
      JSON.stringify(why.decision),
      JSON.stringify(replicas),
      this.output.split('\n').slice(-25).join('\n'),
    ].join('\n');
  }

  private async ask<T>(method: string, path: string, body?: unknown): Promise<T> {
    const { url, token } = JSON.parse(readFileSync(join(this.stateDir, 'api.json'), 'utf8')) as {
      url: string;
      token: string;
    };
    const response = await fetch(`${url}${path}`, {
      method,
      headers: {
        authorization: `Bearer ${token}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return JSON.parse(text) as T;
  }
}

export function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const socket = createServer();
    socket.listen(0, '127.0.0.1', () => {
      const { port } = socket.address() as { port: number };
      socket.close(() => resolve(port));
    });
  });
}
