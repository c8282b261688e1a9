/** Where the time of a step goes: spans that nest, told by the code that does the work and kept by whoever wants to know. */
import { assert } from './assert.ts';
import type { Clock } from './clock.ts';

export type SpanArgs = Readonly<Record<string, number>>;

export interface Spans {
  begin(name: string): void;
  /** Ends the span begun last. */
  end(args?: SpanArgs): void;
  /**
   * Children of the open span, one right after the other: child i is `names[i]` and lasts from marksMs[i] to marksMs[i + 1],
   * in ms since the open span began. Copies the marks.
   */
  children(names: readonly string[], marksMs: Float64Array): void;
}

export const NO_SPANS: Spans = { begin: () => {}, end: () => {}, children: () => {} };

export interface Span {
  readonly name: string;
  readonly startMs: number;
  readonly endMs: number;
  /** 0 = inside no other. */
  readonly depth: number;
  readonly args: SpanArgs | null;
  readonly children: null | { readonly names: readonly string[]; readonly marksMs: Float64Array };
}

/** Marks that are given room at once: an allocation within every step would be the longest part of many. */
const MARKS_AT_ONCE = 1 << 15;

type OpenSpan = { -readonly [K in keyof Span]: Span[K] };

/** Keeps the outermost spans called `counted`, with all in and between them, until there are `limit` of them. */
export class SpanRecorder implements Spans {
  /** In the order in which they began. */
  readonly spans: Span[] = [];
  private readonly open: OpenSpan[] = [];
  private readonly clock: Clock;
  private readonly counted: string;
  private readonly limit: number;
  private count = 0;
  private full = false;
  private marks = new Float64Array(0);
  private marksUsed = 0;

  constructor(clock: Clock, counted: string, limit: number) {
    this.clock = clock;
    this.counted = counted;
    this.limit = limit;
  }

  /** From the moment on in which one span more than the limit begins; nothing is kept any more. */
  get isFull(): boolean {
    return this.full;
  }

  begin(name: string): void {
    if (this.full) return;
    if (this.open.length === 0 && name === this.counted && this.count++ === this.limit) {
      this.full = true;
      return;
    }
    const depth = this.open.length;
    const span: OpenSpan = { name, startMs: 0, endMs: 0, depth, args: null, children: null };
    this.spans.push(span);
    this.open.push(span);
    span.startMs = this.clock.now();
  }

  end(args?: SpanArgs): void {
    if (this.full) return;
    const endMs = this.clock.now();
    const span = this.open.pop();
    assert(span !== undefined, 'a span that ends has begun');
    span.endMs = endMs;
    if (args !== undefined) span.args = args;
  }

  children(names: readonly string[], marksMs: Float64Array): void {
    const span = this.open.at(-1);
    if (this.full || span === undefined) return;
    assert(marksMs.length === names.length + 1, 'a mark before and after each child');
    span.children = { names, marksMs: this.keep(marksMs) };
  }
  private keep(marks: Float64Array): Float64Array {
    if (this.marksUsed + marks.length > this.marks.length) {
      // Filled, so that its pages are there.
      this.marks = new Float64Array(Math.max(MARKS_AT_ONCE, marks.length)).fill(0);
      this.marksUsed = 0;
    }
    const kept = this.marks.subarray(this.marksUsed, this.marksUsed + marks.length);
    kept.set(marks);
    this.marksUsed += marks.length;
    return kept;
  }
}
