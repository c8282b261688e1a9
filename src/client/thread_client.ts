/**
 * The engine on its own thread. Commands go through a port and ring a doorbell; outputs come back one message a step. The
 * engine thread never returns to its event loop, so this side alone keeps the process alive while requests are in flight.
 */
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads';
import { type Clock, systemClock } from '../base/clock.ts';
import { deserializeError, TokenmillError } from '../base/errors.ts';
import type { EngineCommand, EngineRequest, EngineStats, RequestOutput } from '../engine/types.ts';
import type { EngineClient, EngineHealth } from './engine_client.ts';
import type {
  EngineThreadData,
  EngineThreadMessage,
  LoadedEngine,
  LoadProgress,
  LoadRequest,
} from './engine_thread.ts';
import { Heartbeat } from './heartbeat.ts';
import { InFlight } from './in_flight.ts';
import { unpackOutputs } from './packed_outputs.ts';
import type { Notice } from './step_profile.ts';

/** How long a closing engine may take to free its memory before the thread is ended from outside. */
const CLOSE_LIMIT_MS = 5000;

export interface ThreadClientOptions {
  readonly load: LoadRequest;
  readonly onProgress?: (progress: LoadProgress) => void;
  readonly onNotice?: (notice: Notice) => void;
  readonly clock?: Clock;
}

/** Built files start the thread as they are; from TypeScript sources the built thread is used, since Node runs no .ts. */
function threadUrl(): URL {
  const fromSources = import.meta.url.endsWith('.ts');
  return new URL(fromSources ? '../../dist/client/engine_thread.js' : './engine_thread.js', import.meta.url);
}

export class ThreadClient implements EngineClient {
  readonly died: Promise<TokenmillError>;
  /** What the thread found out while loading. */
  readonly loaded: LoadedEngine;
  private readonly clock: Clock;
  private readonly worker: Worker;
  private readonly port: MessagePort;
  private readonly doorbell: Int32Array;
  private readonly heartbeat: Heartbeat;
  private readonly inFlight = new InFlight();
  private readonly stuckLimitS: number;
  private readonly notify: (notice: Notice) => void;
  private reportDeath: (error: TokenmillError) => void = () => {};
  private death: TokenmillError | null = null;
  private closing: Promise<void> | null = null;
  private busySinceMs: number | null = null;

  /** Starts the thread and loads the model on it. Rejects with the error of loading. */
  static async start(options: ThreadClientOptions): Promise<ThreadClient> {
    const doorbell = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
    const heartbeat = new Heartbeat();
    const { port1, port2 } = new MessageChannel();
    const data: EngineThreadData = {
      kind: 'tokenmill-engine',
      load: options.load,
      port: port2,
      doorbell: doorbell.buffer as SharedArrayBuffer,
      heartbeat: heartbeat.memory,
    };
    const worker = new Worker(threadUrl(), { workerData: data, transferList: [port2] });
    const loaded = await awaitLoad(worker, port1, options.onProgress ?? (() => {}));
    return new ThreadClient(options, worker, port1, doorbell, heartbeat, loaded);
  }

  private constructor(
    options: ThreadClientOptions,
    worker: Worker,
    port: MessagePort,
    doorbell: Int32Array,
    heartbeat: Heartbeat,
    loaded: LoadedEngine,
  ) {
    this.clock = options.clock ?? systemClock;
    this.stuckLimitS = options.load.config.stuckLimit;
    this.notify = options.onNotice ?? (() => {});
    this.worker = worker;
    this.port = port;
    this.doorbell = doorbell;
    this.heartbeat = heartbeat;
    this.loaded = loaded;
    this.died = new Promise((resolve) => {
      this.reportDeath = resolve;
    });
    port.on('message', (message: EngineThreadMessage) => this.receive(message));
    worker.on('error', (error) => this.die(error.message, error));
    worker.on('exit', (code) => this.die(`its thread ended with code ${code}`));
    this.holdProcess();
  }

  add(requests: readonly EngineRequest[], onOutput: (output: RequestOutput) => void): void {
    this.checkAlive();
    this.inFlight.add(requests, onOutput);
    this.send({ kind: 'add', requests });
  }

  abort(ids: readonly string[]): void {
    const known = this.inFlight.known(ids);
    if (known.length > 0 && this.death === null && this.closing === null) this.send({ kind: 'abort', ids: known });
  }

  onStats(listener: (stats: EngineStats) => void): () => void {
    return this.inFlight.onStats(listener);
  }

  health(): EngineHealth {
    const dead = this.death?.message ?? (this.closing === null ? null : 'The engine is closed.');
    return this.heartbeat.health(this.clock.now(), dead, this.busySinceMs, this.stuckLimitS);
  }

  resetPrefixCache(): Promise<boolean> {
    this.checkAlive();
    return new Promise((resolve) => this.send({ kind: 'reset_prefix_cache', token: this.inFlight.addReset(resolve) }));
  }

  close(): Promise<void> {
    this.closing ??= this.end();
    return this.closing;
  }

  private async end(): Promise<void> {
    if (this.death === null) {
      this.worker.ref();
      const exited = new Promise<void>((resolve) => this.worker.once('exit', () => resolve()));
      this.post({ kind: 'shutdown' });
      const timer = setTimeout(() => void this.worker.terminate(), CLOSE_LIMIT_MS);
      await exited;
      clearTimeout(timer);
      // What the engine said last is still in the port.
      for (let last = receiveMessageOnPort(this.port); last; last = receiveMessageOnPort(this.port)) {
        this.receive(last.message as EngineThreadMessage);
      }
    }
    this.port.close();
    this.inFlight.endAll(null);
  }

  private checkAlive(): void {
    if (this.death !== null) throw this.death;
    if (this.closing !== null) throw new TokenmillError('engine_dead', 'The engine is closed.');
  }

  private send(command: EngineCommand): void {
    this.busySinceMs ??= this.clock.now();
    this.holdProcess();
    this.post(command);
  }

  /** Post, then count, then wake: the engine reads the count before it drains the port, so no ring is lost. */
  private post(command: EngineCommand): void {
    this.port.postMessage(command);
    Atomics.add(this.doorbell, 0, 1);
    Atomics.notify(this.doorbell, 0);
  }

  private receive(message: EngineThreadMessage): void {
    if (message.kind === 'fatal') {
      this.die(message.error.message);
      return;
    }
    if (message.kind === 'notice') this.notify(message.notice);
    if (message.kind !== 'step') return;
    this.inFlight.publish(unpackOutputs(message.outputs));
    if (this.inFlight.size === 0) this.busySinceMs = null;
    this.holdProcess();
  }

  private die(why: string, cause?: unknown): void {
    if (this.death !== null || this.closing !== null) return;
    this.death = new TokenmillError('engine_dead', `The engine ended: ${why}.`, { cause });
    this.inFlight.endAll(this.death);
    this.port.close();
    this.reportDeath(this.death);
  }

  /** An idle engine must not keep a finished program running; a busy one must. */
  private holdProcess(): void {
    const busy = this.inFlight.size > 0;
    for (const handle of [this.worker, this.port]) {
      if (busy) handle.ref();
      else handle.unref();
    }
  }
}

function awaitLoad(
  worker: Worker,
  port: MessagePort,
  onProgress: (progress: LoadProgress) => void,
): Promise<LoadedEngine> {
  return new Promise((resolve, reject) => {
    const settle = (): void => {
      port.off('message', onMessage);
      worker.off('error', onError);
      worker.off('exit', onExit);
    };
    const fail = (error: Error): void => {
      settle();
      port.close();
      void worker.terminate();
      reject(error);
    };
    const onMessage = (message: EngineThreadMessage): void => {
      if (message.kind === 'progress') onProgress(message.progress);
      else if (message.kind === 'fatal') fail(deserializeError(message.error));
      else if (message.kind === 'loaded') {
        settle();
        resolve(message.loaded);
      }
    };
    const onError = (error: Error): void =>
      fail(new TokenmillError('engine_dead', `The engine thread failed: ${error.message}.`, { cause: error }));
    const onExit = (code: number): void =>
      fail(new TokenmillError('engine_dead', `The engine thread ended with code ${code} while loading.`));
    port.on('message', onMessage);
    worker.on('error', onError);
    worker.on('exit', onExit);
  });
}
