/**
 * The engine on the caller's own thread: one step per turn of the event loop. For tests and small uses; the thread is busy
 * during a step. Same interface and same outputs as the engine thread.
 */
import { type Clock, systemClock } from '../base/clock.ts';
import { TokenmillError } from '../base/errors.ts';
import type { EngineCore } from '../engine/engine_core.ts';
import type { EngineCommand, EngineRequest, EngineStats, RequestOutput, StepOutputs } from '../engine/types.ts';
import type { EngineClient, EngineHealth } from './engine_client.ts';
import { Heartbeat } from './heartbeat.ts';
import { InFlight } from './in_flight.ts';

export interface InProcessOptions {
  readonly stuckLimitS: number;
  readonly clock?: Clock;
  /** Called after each step. */
  readonly onStep?: () => void;
  /** Frees native memory; called once by `close`. */
  readonly onClose?: () => void;
}

export class InProcessClient implements EngineClient {
  readonly died: Promise<TokenmillError>;
  private readonly core: Pick<EngineCore, 'apply' | 'hasWork' | 'step'>;
  private readonly options: InProcessOptions;
  private readonly clock: Clock;
  private readonly inFlight = new InFlight();
  private readonly heartbeat = new Heartbeat();
  private reportDeath: (error: TokenmillError) => void = () => {};
  private death: TokenmillError | null = null;
  private closed = false;
  private scheduled = false;
  private busySinceMs: number | null = null;

  constructor(core: Pick<EngineCore, 'apply' | 'hasWork' | 'step'>, options: InProcessOptions) {
    this.core = core;
    this.options = options;
    this.clock = options.clock ?? systemClock;
    this.died = new Promise((resolve) => {
      this.reportDeath = resolve;
    });
  }

  add(requests: readonly EngineRequest[], onOutput: (output: RequestOutput) => void): void {
    this.checkAlive();
    this.inFlight.add(requests, onOutput);
    this.send({ kind: 'add', requests });
  }

  abort(ids: readonly string[]): void {
    const known = this.inFlight.known(ids);
    if (known.length > 0 && !this.closed) this.send({ kind: 'abort', ids: known });
  }

  onStats(listener: (stats: EngineStats) => void): () => void {
    return this.inFlight.onStats(listener);
  }

  health(): EngineHealth {
    const dead = this.death?.message ?? (this.closed ? 'The engine is closed.' : null);
    return this.heartbeat.health(this.clock.now(), dead, this.busySinceMs, this.options.stuckLimitS);
  }

  resetPrefixCache(): Promise<boolean> {
    this.checkAlive();
    return new Promise((resolve) => this.send({ kind: 'reset_prefix_cache', token: this.inFlight.addReset(resolve) }));
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    if (this.death === null) this.core.apply({ kind: 'shutdown' });
    this.inFlight.endAll(null);
    this.options.onClose?.();
  }

  private checkAlive(): void {
    if (this.death !== null) throw this.death;
    if (this.closed) throw new TokenmillError('engine_dead', 'The engine is closed.');
  }

  private send(command: EngineCommand): void {
    this.core.apply(command);
    this.busySinceMs ??= this.clock.now();
    this.schedule();
  }

  private schedule(): void {
    if (this.scheduled || this.closed || this.death !== null) return;
    this.scheduled = true;
    setImmediate(() => this.turn());
  }

  private turn(): void {
    this.scheduled = false;
    if (this.closed || this.death !== null) return;
    if (!this.core.hasWork()) {
      this.busySinceMs = null;
      return;
    }
    let outputs: StepOutputs;
    try {
      this.heartbeat.stepStarts(this.clock.now());
      outputs = this.core.step();
      this.heartbeat.stepEnds(this.clock.now());
    } catch (error) {
      this.die(error);
      return;
    }
    this.inFlight.publish(outputs);
    this.options.onStep?.();
    this.schedule();
  }

  private die(cause: unknown): void {
    const why = cause instanceof Error ? cause.message : String(cause);
    this.death = new TokenmillError('engine_dead', `The engine ended: ${why}.`, { cause });
    this.inFlight.endAll(this.death);
    this.reportDeath(this.death);
  }
}
