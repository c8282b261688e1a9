/** Server-sent events on a hijacked answer: what one turn of the event loop produces goes out in one write. */
import type { OutgoingHttpHeaders, ServerResponse } from 'node:http';

export interface SseOptions {
  readonly headers: OutgoingHttpHeaders;
  /** Unsent bytes above which the client counts as not reading. */
  readonly maxUnsentBytes: number;
  /** 0 = no keep-alive comments. */
  readonly keepAliveIntervalS: number;
  /** Called once when the limit is passed, before the socket is destroyed. */
  readonly onSlowReader: () => void;
}

export class SseWriter {
  private readonly raw: ServerResponse;
  private readonly options: SseOptions;
  private pending = '';
  private flushing: NodeJS.Immediate | null = null;
  private keepAlive: NodeJS.Timeout | null = null;
  private ended = false;

  constructor(raw: ServerResponse, options: SseOptions) {
    this.raw = raw;
    this.options = options;
    raw.writeHead(200, {
      ...options.headers,
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
      'x-accel-buffering': 'no',
    });
    raw.flushHeaders();
    if (options.keepAliveIntervalS > 0) {
      this.keepAlive = setInterval(() => this.push(': keep-alive\n\n'), options.keepAliveIntervalS * 1000);
      this.keepAlive.unref();
    }
    raw.once('close', () => this.stop());
  }

  /** `json` must hold no line break, which JSON never does. */
  event(json: string): void {
    this.push(`data: ${json}\n\n`);
  }

  /** Sends what is pending, then `data: [DONE]`, and ends the answer. */
  done(): void {
    if (this.ended) return;
    const rest = `${this.pending}data: [DONE]\n\n`;
    this.pending = '';
    this.stop();
    this.raw.end(rest);
  }

  private push(text: string): void {
    if (this.ended) return;
    this.pending += text;
    this.keepAlive?.refresh();
    this.flushing ??= setImmediate(() => this.flush());
  }

  private flush(): void {
    this.flushing = null;
    if (this.ended || this.pending === '') return;
    const text = this.pending;
    this.pending = '';
    this.raw.write(text);
    if (this.raw.writableLength > this.options.maxUnsentBytes) {
      this.stop();
      this.options.onSlowReader();
      this.raw.destroy();
    }
  }

  private stop(): void {
    this.ended = true;
    if (this.flushing) clearImmediate(this.flushing);
    if (this.keepAlive) clearInterval(this.keepAlive);
    this.flushing = null;
    this.keepAlive = null;
  }
}
