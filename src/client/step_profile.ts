/** `--profile FILE`: the engine's first steps as a Chrome trace, for chrome://tracing and ui.perfetto.dev. */
import { accessSync, closeSync, constants, openSync, statSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Clock } from '../base/clock.ts';
import { TokenmillError } from '../base/errors.ts';
import { type Span, SpanRecorder } from '../base/spans.ts';

/** Something that is to be logged by whoever has a log. */
export interface Notice {
  readonly level: 'info' | 'warn' | 'error';
  readonly text: string;
}

const ENGINE_THREAD = { pid: 1, tid: 1 } as const;
/** Bytes of a write, about. */
const CHUNK = 1 << 18;

/** Throws `flag_invalid` when the file's folder cannot be written to: better told before loading than after a run. */
export function checkProfilePath(path: string): void {
  try {
    accessSync(dirname(path), constants.W_OK);
    if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) throw new Error('it is a folder');
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new TokenmillError('flag_invalid', `--profile ${path} cannot be written: ${why}.`, {
      param: '--profile',
      remedy: 'Name a file in a folder that exists and is yours to write to.',
      cause,
    });
  }
}

export class StepProfile {
  readonly spans: SpanRecorder;
  private readonly path: string;
  private readonly title: string;
  private readonly notify: (notice: Notice) => void;
  private written = false;

  /** @param title names the process in the viewer */
  constructor(path: string, steps: number, title: string, clock: Clock, notify: (notice: Notice) => void) {
    this.spans = new SpanRecorder(clock, 'step', steps);
    this.path = path;
    this.title = title;
    this.notify = notify;
  }

  /** To be called now and then: writes the file, once, when all steps are there. */
  poll(): void {
    if (this.spans.isFull) this.write();
  }

  /** Writes what there is, unless the file is written already. A disk that is full costs the file, never the server. */
  write(): void {
    if (this.written) return;
    this.written = true;
    try {
      writeChunks(this.path, chromeTrace(this.spans.spans, this.title));
      this.notify({ level: 'info', text: `--profile: the steps are in ${this.path}` });
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      this.notify({ level: 'error', text: `--profile ${this.path} could not be written: ${why}` });
    }
    this.spans.spans.length = 0;
  }
}

function writeChunks(path: string, parts: Iterable<string>): void {
  const file = openSync(path, 'w');
  try {
    let chunk = '';
    for (const part of parts) {
      chunk += part;
      if (chunk.length < CHUNK) continue;
      writeAll(file, chunk);
      chunk = '';
    }
    writeAll(file, chunk);
  } finally {
    closeSync(file);
  }
}

function writeAll(file: number, text: string): void {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
}

/**
 * The JSON text, in pieces. Format: Chromium's "Trace Event Format", complete events (ph X) with times in microseconds;
 * events of one thread nest by containment.
 */
export function* chromeTrace(spans: readonly Span[], title: string): Generator<string> {
  const originMs = spans[0]?.startMs ?? 0;
  const metadata = (name: string, value: string) =>
    JSON.stringify({ ph: 'M', ...ENGINE_THREAD, name, args: { name: value } });
  yield `{"displayTimeUnit":"ms","traceEvents":[\n${metadata('process_name', title)},\n${metadata('thread_name', 'engine')}`;
  for (const span of spans) {
    yield event(span.name, span.startMs - originMs, span.endMs - originMs, span.args);
    if (span.children === null) continue;
    const { names, marksMs } = span.children;
    // The two clocks differ by what a look at them takes: a child ends with its parent at the latest.
    const at = (index: number) => Math.min(span.startMs + (marksMs[index] as number), span.endMs) - originMs;
    for (const [index, name] of names.entries()) yield event(name, at(index), at(index + 1), null);
  }
  yield '\n]}\n';
}

function event(name: string, startMs: number, endMs: number, args: Span['args']): string {
  const ts = toNanoseconds(startMs);
  // From rounded ends, so that what nests still does.
  const dur = Math.max(0, toNanoseconds(endMs) - ts) / 1000;
  return `,\n${JSON.stringify({ ph: 'X', ...ENGINE_THREAD, name, ts: ts / 1000, dur, ...(args === null ? {} : { args }) })}`;
}

const toNanoseconds = (ms: number): number => Math.round(ms * 1e6);
