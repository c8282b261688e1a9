/**
 * The engine's signs of life, in memory that both threads see: the loop beats before and after every step, so a reader can
 * tell idle from stuck from dead without asking the engine, which could not answer while stuck.
 */
import type { EngineHealth } from './engine_client.ts';

const BEAT = 0;
const STEP_START = 1;
const STEP_MS = 2;
const STEPS = 3;
const FIELDS = 4;

export class Heartbeat {
  readonly memory: SharedArrayBuffer;
  private readonly fields: Float64Array;

  constructor(memory = new SharedArrayBuffer(FIELDS * Float64Array.BYTES_PER_ELEMENT)) {
    this.memory = memory;
    this.fields = new Float64Array(memory);
  }

  beat(nowMs: number): void {
    this.fields[BEAT] = nowMs;
  }

  stepStarts(nowMs: number): void {
    this.fields[BEAT] = nowMs;
    this.fields[STEP_START] = nowMs;
  }

  stepEnds(nowMs: number): void {
    this.fields[BEAT] = nowMs;
    this.fields[STEP_MS] = nowMs - this.fields[STEP_START]!;
    this.fields[STEPS] = this.fields[STEPS]! + 1;
  }

  get steps(): number {
    return this.fields[STEPS]!;
  }

  /**
   * @param dead why the engine ended; null while it lives
   * @param busySinceMs since when work has been waiting for the engine without a pause; null when idle
   */
  health(nowMs: number, dead: string | null, busySinceMs: number | null, stuckLimitS: number): EngineHealth {
    const heartbeatMs = this.fields[BEAT]!;
    const lastStepMs = this.fields[STEP_MS]!;
    if (dead !== null) return { healthy: false, reason: dead, heartbeatMs, lastStepMs };
    const silentS = busySinceMs === null ? 0 : (nowMs - Math.max(heartbeatMs, busySinceMs)) / 1000;
    const stuck = silentS > stuckLimitS;
    const reason = stuck
      ? `The engine has work but gave no sign of life for ${silentS.toFixed(1)} s (--stuck-limit ${stuckLimitS}).`
      : null;
    return { healthy: !stuck, reason, heartbeatMs, lastStepMs };
  }
}
