/** One server that requests can go to, and what this gateway knows of it. */
import type { EndpointView } from '../pick/scorers.ts';
import { type EngineSample, parseEngineSample } from './engine_sample.ts';
import { requestHead } from './request_head.ts';
import type { ResponseHead } from './response_parser.ts';
import type { Endpoint } from './routing_table.ts';
import { UPSTREAM_LIMITS, type UpstreamLimits, UpstreamPool } from './upstream.ts';

/** Where a request is sent and how its head is made. */
export interface Target {
  readonly pool: UpstreamPool;
  /** For the `host` field and for `x-gateway-destination-endpoint-served`. */
  readonly host: string;
  readonly pathOf: (path: string) => string;
  /** Replaces the client's; null = the client's goes on. */
  readonly authorization: string | null;
}

const MAX_SAMPLE_BYTES = 4 * 2 ** 20;
const SAMPLE_TIMEOUT_MS = 2000;

export class EndpointLive implements Target {
  readonly id: string;
  readonly url: string;
  readonly host: string;
  readonly pool: UpstreamPool;
  readonly authorization = null;
  state: Endpoint['state'];
  inFlight = 0;
  inFlightTokens = 0;
  private sample: EngineSample | null = null;
  private sampledAt = 0;
  private sampling = false;

  constructor({ id, url, state }: Endpoint) {
    const parsed = new URL(url);
    this.id = id;
    this.url = url;
    this.state = state;
    this.host = parsed.host;
    this.pool = new UpstreamPool(parsed);
  }

  pathOf(path: string): string {
    return path;
  }

  /** Tokens that its KV cache holds; null = not known. */
  get cacheTokens(): number | null {
    return this.sample?.cacheTokens ?? null;
  }

  view(available: boolean, now: number): EndpointView {
    const { sample } = this;
    return {
      id: this.id,
      available,
      inFlight: this.inFlight,
      inFlightTokens: this.inFlightTokens,
      waiting: sample?.waiting ?? null,
      running: sample?.running ?? null,
      kvUsage: sample?.kvUsage ?? null,
      lora: sample?.lora ?? null,
      sampleAgeMs: sample === null ? null : now - this.sampledAt,
    };
  }

  /** Asks the engine's /metrics, unless the last question is still open. */
  takeSample(now: number, done: () => void): void {
    if (this.sampling) return;
    this.sampling = true;
    const pieces: Buffer[] = [];
    let bytes = 0;
    let status = 0;
    const head = requestHead('GET', '/metrics', this.host, 'accept: text/plain\r\n', null);
    const finish = (good: boolean): void => {
      clearTimeout(timer);
      this.sampling = false;
      if (good && status === 200) {
        this.sample = parseEngineSample(Buffer.concat(pieces).toString('latin1'));
        this.sampledAt = now;
      }
      done();
    };
    const giveUp = (): void => {
      call.abort();
      finish(false);
    };
    const call = this.pool.request(
      { head, body: null, headRequest: false },
      {
        onHead: (answer: ResponseHead) => {
          status = answer.status;
        },
        onBody: (more) => {
          for (const piece of more) bytes += piece.length;
          if (bytes > MAX_SAMPLE_BYTES) giveUp();
          else pieces.push(...more);
        },
        onEnd: () => finish(true),
        onError: () => finish(false),
      },
    );
    const timer = setTimeout(giveUp, SAMPLE_TIMEOUT_MS);
  }
}

const EXTERNAL_LIMITS: UpstreamLimits = { ...UPSTREAM_LIMITS, connectTimeoutMs: 10_000, maxIdle: 64 };

/** An OpenAI-compatible server that is not ours, `https://api.example.com/v1`. */
export class ExternalTarget implements Target {
  readonly host: string;
  readonly pool: UpstreamPool;
  readonly authorization: string | null;
  private readonly base: string;
  private readonly whole: string;

  constructor(url: string, key: string | null) {
    const parsed = new URL(url);
    this.host = parsed.host;
    this.pool = new UpstreamPool(parsed, EXTERNAL_LIMITS);
    this.authorization = key === null ? '' : `authorization: Bearer ${key}\r\n`;
    this.base = parsed.pathname.replace(/\/+$/, '');
    this.whole = parsed.pathname + parsed.search;
  }

  /** The version is part of the base or of the path, not of both. '' = the URL as it is. */
  pathOf(path: string): string {
    if (path === '') return this.whole;
    return this.base.endsWith('/v1') && path.startsWith('/v1/') ? this.base + path.slice(3) : this.base + path;
  }
}
