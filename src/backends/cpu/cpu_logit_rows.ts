import type { DrawParams, LogitRows } from '../backend.ts';
import { type NativeModel, native } from './native_binding.ts';

/** Logit rows in native memory: views without copies, scans by the kernels. */
export class CpuLogitRows implements LogitRows {
  readonly vocabSize: number;
  private readonly model: NativeModel;
  private readonly views: Float32Array[] = [];
  private readonly buffer: ArrayBuffer;

  constructor(model: NativeModel, vocabSize: number) {
    this.model = model;
    this.vocabSize = vocabSize;
    this.buffer = native(() => model.logits());
  }

  row(r: number): Float32Array {
    let view = this.views[r];
    if (view === undefined) {
      view = new Float32Array(this.buffer, r * this.vocabSize * 4, this.vocabSize);
      this.views[r] = view;
    }
    return view;
  }

  logSumExp(r: number): number {
    return native(() => this.model.logSumExp(r));
  }

  argmax(r: number): number {
    return native(() => this.model.argmax(r));
  }

  topK(r: number, k: number): { ids: Int32Array; logits: Float32Array } {
    const most = Math.min(k, this.vocabSize);
    const ids = new Int32Array(most);
    const logits = new Float32Array(most);
    const count = native(() => this.model.topK(r, most, ids, logits));
    return { ids: ids.subarray(0, count), logits: logits.subarray(0, count) };
  }

  rank(r: number, id: number): number {
    return native(() => this.model.rank(r, id));
  }

  sample(r: number, { temperature, topK, topP, minP, u }: DrawParams): number {
    return native(() => this.model.sample(r, temperature, topK, topP, minP, u));
  }

  process(r: number, { temperature, topK, topP, minP }: Omit<DrawParams, 'u'>): void {
    native(() => this.model.process(r, temperature, topK, topP, minP));
  }
}
