/** The keys of a running gateway: looked up once and kept, limits counted in memory, usage written in batches. */
import { createHash, timingSafeEqual } from 'node:crypto';
import { TokenmillError } from '../../../base/errors.ts';
import {
  cancelReservation,
  initialUsage,
  type KeyLimits,
  type KeyUsage,
  rateLimitHeaders,
  reserve,
  settle,
} from '../../pick/rate_limit.ts';
import type { ExchangeEnd } from '../client_request.ts';
import type { Admitted, KeyGate } from './key_gate.ts';
import type { KeyRecord, KeyStore, PeriodSpend, UsageRow } from './key_store.ts';

/** Of a model, in the unit of budgets per million tokens. */
export interface Price {
  readonly promptPerMillion: number;
  readonly outputPerMillion: number;
}

export interface KeysOptions {
  readonly store: KeyStore;
  /** Of the admin API; also lets every request through. Null = there is no admin API. */
  readonly masterKey: string | null;
  /** By name; `*` = every other. None = budgets are refused. */
  readonly prices: ReadonlyMap<string, Price>;
  readonly now: () => number;
  readonly onWriteError: (error: unknown) => void;
}

interface KeyLive {
  record: KeyRecord;
  limits: KeyLimits;
  usage: KeyUsage;
  /** Spent in the period of `usage` and not yet in the store. */
  unwritten: number;
}

const MAX_CACHED = 50_000;
const MAX_MISSES = 10_000;
/** Rows that wait to be written; beyond it the oldest counts are kept and new rows are dropped and counted. */
const MAX_PENDING_ROWS = 50_000;
const HOUR_MS = 3_600_000;

export const hashKey = (key: string): string => createHash('sha256').update(key, 'utf8').digest('hex');

function limitsOf(record: KeyRecord): KeyLimits {
  const { requestsPerMin, tokensPerMin, maxParallel, maxBudget, budgetPeriodMs } = record;
  const budget = maxBudget === null ? null : { max: maxBudget, periodMs: budgetPeriodMs };
  return { requestsPerMin, tokensPerMin, maxParallel, budget };
}

export class Keys implements KeyGate {
  readonly options: KeysOptions;
  /** Least recently used first. */
  private readonly cached = new Map<string, KeyLive>();
  private readonly misses = new Set<string>();
  private readonly pending = new Map<string, UsageRow>();
  private readonly touched = new Set<KeyLive>();
  private readonly masterHash: Buffer | null;
  droppedRows = 0;

  constructor(options: KeysOptions) {
    this.options = options;
    const { masterKey } = options;
    this.masterHash = masterKey === null ? null : createHash('sha256').update(masterKey, 'utf8').digest();
  }

  isMaster(token: string | null): boolean {
    if (token === null || this.masterHash === null) return false;
    return timingSafeEqual(createHash('sha256').update(token, 'utf8').digest(), this.masterHash);
  }

  knows(token: string): boolean {
    return this.isMaster(token) || this.live(token) !== null;
  }

  private live(token: string): KeyLive | null {
    if (token === '' || token.length > 512) return null;
    return this.byHash(hashKey(token));
  }

  private byHash(hash: string): KeyLive | null {
    const known = this.cached.get(hash);
    if (known !== undefined) {
      this.cached.delete(hash);
      this.cached.set(hash, known);
      return known;
    }
    if (this.misses.has(hash)) return null;
    const record = this.options.store.find(hash);
    if (record === null) {
      if (this.misses.size >= MAX_MISSES) this.misses.clear();
      this.misses.add(hash);
      return null;
    }
    const { periodSpend, periodAt } = this.options.store.spendOf(hash);
    const usage = { ...initialUsage(this.options.now()), spent: periodSpend, periodAt };
    const live = { record, limits: limitsOf(record), usage, unwritten: 0 };
    this.cached.set(hash, live);
    if (this.cached.size > MAX_CACHED) this.evict();
    return live;
  }

  /** One that has nothing in flight and nothing unwritten. */
  private evict(): void {
    for (const [hash, live] of this.cached) {
      if (live.usage.parallel > 0 || this.touched.has(live)) continue;
      this.cached.delete(hash);
      return;
    }
  }

  private required(token: string | null, required: boolean): KeyLive | null {
    if (this.isMaster(token)) return null;
    const live = token === null ? null : this.live(token);
    if (live === null) {
      if (!required) return null;
      throw new TokenmillError(
        'unauthorized',
        token === null ? 'The request has no API key.' : 'The API key is not known.',
        {
          remedy: 'Send a key in the header Authorization: Bearer.',
        },
      );
    }
    const { record } = live;
    if (record.blocked) throw new TokenmillError('model_not_allowed', `The key ${record.shown} is blocked.`);
    if (record.expiresAt !== null && record.expiresAt <= this.options.now())
      throw new TokenmillError('unauthorized', `The key ${record.shown} has expired.`);
    return live;
  }

  visible(token: string | null, required: boolean): ReadonlySet<string> | null {
    const live = this.required(token, required);
    return live === null || live.record.models.length === 0 ? null : new Set(live.record.models);
  }

  private cost(model: string, promptTokens: number, outputTokens: number): number {
    const price = this.options.prices.get(model) ?? this.options.prices.get('*');
    if (price === undefined) return 0;
    return (promptTokens * price.promptPerMillion + outputTokens * price.outputPerMillion) / 1e6;
  }

  admit(token: string | null, model: string, estimateTokens: number, required: boolean): Admitted {
    const live = this.required(token, required);
    if (live === null) return { key: '', headers: [], settle: () => {} };
    const { record } = live;
    if (record.models.length > 0 && !record.models.includes(model)) {
      throw new TokenmillError(
        'model_not_allowed',
        `The key ${record.shown} may not use the model ${model.slice(0, 200)}.`,
        {
          param: 'model',
          remedy: `It may use ${record.models.slice(0, 32).join(', ')}.`,
        },
      );
    }
    const now = this.options.now();
    const estimate = { tokens: estimateTokens, cost: this.cost(model, estimateTokens, 0) };
    const reserved = reserve(live.limits, live.usage, estimate, now);
    live.usage = reserved.usage;
    if (!reserved.ok) {
      const retry = reserved.retryAfterMs === null ? {} : { retryAfterS: reserved.retryAfterMs / 1000 };
      throw new TokenmillError(reserved.status === 400 ? 'budget_exceeded' : 'rate_limited', reserved.message, retry);
    }
    let open = true;
    const headers = Object.entries(rateLimitHeaders(reserved.numbers)).flat();
    return {
      key: record.hash,
      headers,
      settle: (end) => {
        if (open) this.settle(live, model, estimate, end);
        open = false;
      },
    };
  }

  private settle(
    live: KeyLive,
    model: string,
    estimate: { readonly tokens: number; readonly cost: number },
    end: ExchangeEnd,
  ): void {
    const now = this.options.now();
    const { promptTokens, outputTokens, status } = end;
    if (promptTokens + outputTokens === 0 && (status === 429 || status === 503)) {
      live.usage = cancelReservation(live.limits, live.usage, estimate, now);
      return;
    }
    const cost = this.cost(model, promptTokens, outputTokens);
    const { periodAt } = live.usage;
    live.usage = settle(live.limits, live.usage, estimate, { tokens: promptTokens + outputTokens, cost }, now);
    live.unwritten = live.usage.periodAt === periodAt ? live.unwritten + cost : cost;
    this.touched.add(live);
    const hourAt = Math.floor(now / HOUR_MS) * HOUR_MS;
    const id = `${live.record.hash} ${hourAt} ${model}`;
    let row = this.pending.get(id);
    if (row === undefined) {
      if (this.pending.size >= MAX_PENDING_ROWS) {
        this.droppedRows++;
        return;
      }
      const { hash } = live.record;
      row = { hash, model, hourAt, requests: 0, errors: 0, promptTokens: 0, outputTokens: 0, spend: 0 };
      this.pending.set(id, row);
    }
    row.requests++;
    if (status >= 500) row.errors++;
    row.promptTokens += promptTokens;
    row.outputTokens += outputTokens;
    row.spend += cost;
  }

  /** Writes what was used since the last time; called once a second. A failure keeps it for the next time. */
  flush(): void {
    if (this.pending.size === 0 && this.touched.size === 0) return;
    const periods = new Map<string, PeriodSpend>();
    for (const { record, usage, unwritten } of this.touched) {
      periods.set(record.hash, { spend: unwritten, at: usage.periodAt });
    }
    try {
      this.options.store.addUsage([...this.pending.values()], periods);
    } catch (error) {
      this.options.onWriteError(error);
      return;
    }
    for (const live of this.touched) live.unwritten = 0;
    this.pending.clear();
    this.touched.clear();
  }

  /** After a change by the admin: what is in flight goes on under the new limits. */
  changed(record: KeyRecord): void {
    this.misses.delete(record.hash);
    const live = this.cached.get(record.hash);
    if (live === undefined) return;
    live.record = record;
    live.limits = limitsOf(record);
  }

  removed(hash: string): void {
    this.cached.delete(hash);
  }

  close(): void {
    this.flush();
    this.options.store.close();
  }
}
