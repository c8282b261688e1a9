/**
 * One replica in virtual time. Prompts are computed one after the other; all requests that have their first token decode side by
 * side, a token each in the time the batch takes. So a request ends when the tokens per request since the start (`work`) reach the
 * value it had at its first token plus its length, and a change of the batch moves one number, not every request.
 */
import type { ReplicaPhase } from '../control/fleet_state.ts';
import type { BatchTable } from './replica_model.ts';

/** Who hears of a request's progress. */
export interface RequestSink {
  firstToken(request: number, now: number): void;
  ended(request: number, now: number): void;
}

export type SimPhase = Extract<ReplicaPhase, 'starting' | 'ready' | 'asleep' | 'draining'> | 'waking' | 'gone';

const NEVER = Number.POSITIVE_INFINITY;

export class SimReplica {
  readonly index: number;
  readonly createdAt: number;
  phase: SimPhase;
  /** Becomes asleep when it is ready or has finished what it has. */
  toSleep: boolean;
  readyAt: number | null = null;
  /** Of its next event: one put into the heap before something changed is void. */
  version = 0;
  private readonly table: BatchTable;
  private readonly waiting: number[] = [];
  private prefilling = -1;
  private prefillEnd = NEVER;
  private work = 0;
  private workAt = 0;
  /** Heap of decoding requests by the work at which they end. */
  private readonly ends: number[] = [];
  private readonly requests: number[] = [];

  constructor(index: number, table: BatchTable, now: number, toSleep: boolean) {
    this.index = index;
    this.table = table;
    this.createdAt = now;
    this.phase = 'starting';
    this.toSleep = toSleep;
  }

  get inFlight(): number {
    return this.waiting.length + this.batch;
  }

  get running(): number {
    return this.batch;
  }

  get queued(): number {
    return this.waiting.length;
  }

  private get batch(): number {
    return this.ends.length + (this.prefilling >= 0 ? 1 : 0);
  }

  admit(request: number, promptTokens: Uint32Array, now: number): void {
    this.advance(now);
    this.waiting.push(request);
    if (this.prefilling < 0) this.startPrefill(promptTokens, now);
  }

  /** Of what happens next if nothing else does; infinite when idle. */
  get nextTime(): number {
    const first = this.ends[0];
    if (first === undefined) return this.prefillEnd;
    return Math.min(this.prefillEnd, this.workAt + Math.max(0, first - this.work) * this.tpotMs);
  }

  /** At the time of its next event. */
  run(promptTokens: Uint32Array, outputTokens: Uint32Array, now: number, sink: RequestSink): void {
    this.advance(now);
    if (this.prefillEnd <= now) {
      const request = this.prefilling;
      this.prefilling = -1;
      this.prefillEnd = NEVER;
      sink.firstToken(request, now);
      const more = (outputTokens[request] as number) - 1;
      if (more === 0) sink.ended(request, now);
      else this.push(this.work + more, request);
      if (this.waiting.length > 0) this.startPrefill(promptTokens, now);
    }
    while (this.ends.length > 0 && (this.ends[0] as number) <= this.work + 1e-6) sink.ended(this.pop(), now);
  }

  /** All it has, those without a first token apart: another replica can still take them. */
  crash(): { readonly unstarted: number[]; readonly broken: number[] } {
    const unstarted = this.prefilling < 0 ? [...this.waiting] : [this.prefilling, ...this.waiting];
    const broken = [...this.requests];
    this.waiting.length = 0;
    this.ends.length = 0;
    this.requests.length = 0;
    this.prefilling = -1;
    this.prefillEnd = NEVER;
    return { unstarted, broken };
  }

  private get tpotMs(): number {
    return this.table.tpotMs[Math.min(this.batch, this.table.tpotMs.length - 1)] as number;
  }

  private advance(now: number): void {
    if (this.ends.length > 0) this.work += (now - this.workAt) / this.tpotMs;
    this.workAt = now;
  }

  private startPrefill(promptTokens: Uint32Array, now: number): void {
    const request = this.waiting.shift() as number;
    const perToken = this.table.prefillMsPerToken;
    const each = perToken[Math.min(this.ends.length, perToken.length - 1)] as number;
    this.prefilling = request;
    this.prefillEnd = now + (promptTokens[request] as number) * each;
  }

  private push(end: number, request: number): void {
    let at = this.ends.length;
    this.ends.push(end);
    this.requests.push(request);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if ((this.ends[parent] as number) <= end) break;
      this.put(at, this.ends[parent] as number, this.requests[parent] as number);
      at = parent;
    }
    this.put(at, end, request);
  }

  private pop(): number {
    const first = this.requests[0] as number;
    const [end, request] = [this.ends.pop() as number, this.requests.pop() as number];
    const size = this.ends.length;
    if (size === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= size) break;
      if (child + 1 < size && (this.ends[child + 1] as number) < (this.ends[child] as number)) child++;
      if (end <= (this.ends[child] as number)) break;
      this.put(at, this.ends[child] as number, this.requests[child] as number);
      at = child;
    }
    this.put(at, end, request);
    return first;
  }

  private put(at: number, end: number, request: number): void {
    this.ends[at] = end;
    this.requests[at] = request;
  }
}
