/** Virtual keys and what was used by them. Keys themselves are never stored: only their SHA-256. */
import type Database from 'libsql';
import { openDatabase } from '../../sqlite.ts';

export interface KeyRecord {
  /** SHA-256 of the key, hex. */
  readonly hash: string;
  /** `sk-...abcd`, for people. */
  readonly shown: string;
  readonly alias: string | null;
  readonly userId: string | null;
  readonly teamId: string | null;
  /** Empty = all. */
  readonly models: readonly string[];
  readonly requestsPerMin: number | null;
  readonly tokensPerMin: number | null;
  readonly maxParallel: number | null;
  /** In the unit of the prices. */
  readonly maxBudget: number | null;
  readonly budgetPeriodMs: number | null;
  readonly blocked: boolean;
  /** Of the gateway's clock, ms. */
  readonly createdAt: number;
  readonly expiresAt: number | null;
  /** JSON, as the admin gave it. */
  readonly metadata: string;
}

/** Since the key was made, and of the budget's current period. */
export interface KeySpend {
  readonly requests: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly spend: number;
  readonly periodSpend: number;
  readonly periodAt: number;
}

/** What was used of one model by one key within one hour. */
export interface UsageRow {
  readonly hash: string;
  readonly model: string;
  /** Start of the hour, ms. */
  readonly hourAt: number;
  requests: number;
  errors: number;
  promptTokens: number;
  outputTokens: number;
  spend: number;
}

export interface PeriodSpend {
  /** Since the last time. */
  readonly spend: number;
  /** Start of the period, ms. */
  readonly at: number;
}

export interface KeyStore {
  find(hash: string): KeyRecord | null;
  count(): number;
  put(record: KeyRecord): void;
  /** How many there were. */
  remove(hash: string): number;
  spendOf(hash: string): KeySpend;
  /** Adds to the rows and to what was spent in the budgets' periods; of a period that is over nothing is added. */
  addUsage(rows: readonly UsageRow[], periods: ReadonlyMap<string, PeriodSpend>): void;
  usageOf(hash: string, fromMs: number): readonly UsageRow[];
  close(): void;
}

const SCHEMA = `
CREATE TABLE IF NOT EXISTS keys (
  hash TEXT PRIMARY KEY, shown TEXT NOT NULL, alias TEXT UNIQUE, user_id TEXT, team_id TEXT, models TEXT NOT NULL,
  requests_per_min INTEGER, tokens_per_min INTEGER, max_parallel INTEGER, max_budget REAL, budget_period_ms INTEGER,
  blocked INTEGER NOT NULL, created_at REAL NOT NULL, expires_at REAL, metadata TEXT NOT NULL,
  period_spend REAL NOT NULL DEFAULT 0, period_at REAL NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS usage (
  hash TEXT NOT NULL, model TEXT NOT NULL, hour_at REAL NOT NULL, requests INTEGER NOT NULL, errors INTEGER NOT NULL,
  prompt_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, spend REAL NOT NULL,
  PRIMARY KEY (hash, model, hour_at)
);`;

/** Added, not set: during a handover two gateways write. */
const SPEND = `UPDATE keys SET period_spend = CASE WHEN period_at = ? THEN period_spend + ? WHEN period_at < ? THEN ?
  ELSE period_spend END, period_at = max(period_at, ?) WHERE hash = ?`;

/** Rows that one answer about usage may hold. */
const MAX_USAGE_ROWS = 10_000;

interface KeyRow {
  readonly hash: string;
  readonly shown: string;
  readonly alias: string | null;
  readonly user_id: string | null;
  readonly team_id: string | null;
  readonly models: string;
  readonly requests_per_min: number | null;
  readonly tokens_per_min: number | null;
  readonly max_parallel: number | null;
  readonly max_budget: number | null;
  readonly budget_period_ms: number | null;
  readonly blocked: number;
  readonly created_at: number;
  readonly expires_at: number | null;
  readonly metadata: string;
}

function recordOf(row: KeyRow): KeyRecord {
  return {
    hash: row.hash,
    shown: row.shown,
    alias: row.alias,
    userId: row.user_id,
    teamId: row.team_id,
    models: JSON.parse(row.models) as string[],
    requestsPerMin: row.requests_per_min,
    tokensPerMin: row.tokens_per_min,
    maxParallel: row.max_parallel,
    maxBudget: row.max_budget,
    budgetPeriodMs: row.budget_period_ms,
    blocked: row.blocked !== 0,
    createdAt: row.created_at,
    expiresAt: row.expires_at,
    metadata: row.metadata,
  };
}

const PUT = `INSERT INTO keys (hash, shown, alias, user_id, team_id, models, requests_per_min, tokens_per_min, max_parallel,
  max_budget, budget_period_ms, blocked, created_at, expires_at, metadata, period_at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)
  ON CONFLICT(hash) DO UPDATE SET alias=excluded.alias, user_id=excluded.user_id, team_id=excluded.team_id,
  models=excluded.models, requests_per_min=excluded.requests_per_min, tokens_per_min=excluded.tokens_per_min,
  max_parallel=excluded.max_parallel, max_budget=excluded.max_budget, budget_period_ms=excluded.budget_period_ms,
  blocked=excluded.blocked, expires_at=excluded.expires_at, metadata=excluded.metadata`;

const ADD = `INSERT INTO usage (hash, model, hour_at, requests, errors, prompt_tokens, output_tokens, spend)
  VALUES (?,?,?,?,?,?,?,?) ON CONFLICT(hash, model, hour_at) DO UPDATE SET requests=requests+excluded.requests,
  errors=errors+excluded.errors, prompt_tokens=prompt_tokens+excluded.prompt_tokens,
  output_tokens=output_tokens+excluded.output_tokens, spend=spend+excluded.spend`;

/** In one SQLite file; two gateways may have it open during a handover. */
export class SqliteKeyStore implements KeyStore {
  private readonly db: Database.Database;

  /** `:memory:` or a path. Throws when the file cannot be opened. */
  constructor(path: string) {
    this.db = openDatabase(path);
    this.db.exec('PRAGMA journal_mode = WAL');
    this.db.exec('PRAGMA synchronous = NORMAL');
    this.db.exec('PRAGMA busy_timeout = 2000');
    this.db.exec(SCHEMA);
  }

  find(hash: string): KeyRecord | null {
    const row = this.db.prepare('SELECT * FROM keys WHERE hash = ?').get(hash) as KeyRow | undefined;
    return row === undefined ? null : recordOf(row);
  }

  count(): number {
    return (this.db.prepare('SELECT count(*) AS n FROM keys').get() as { n: number }).n;
  }

  put(key: KeyRecord): void {
    const { hash, shown, alias, userId, teamId, requestsPerMin, tokensPerMin, maxParallel, maxBudget } = key;
    this.db
      .prepare(PUT)
      .run(
        ...[hash, shown, alias, userId, teamId, JSON.stringify(key.models), requestsPerMin, tokensPerMin, maxParallel],
        ...[
          maxBudget,
          key.budgetPeriodMs,
          key.blocked ? 1 : 0,
          key.createdAt,
          key.expiresAt,
          key.metadata,
          key.createdAt,
        ],
      );
  }

  remove(hash: string): number {
    return this.db.prepare('DELETE FROM keys WHERE hash = ?').run(hash).changes;
  }

  spendOf(hash: string): KeySpend {
    const sums = this.db
      .prepare(
        `SELECT coalesce(sum(requests), 0) AS requests, coalesce(sum(prompt_tokens), 0) AS promptTokens,
         coalesce(sum(output_tokens), 0) AS outputTokens, coalesce(sum(spend), 0) AS spend FROM usage WHERE hash = ?`,
      )
      .get(hash) as Pick<KeySpend, 'requests' | 'promptTokens' | 'outputTokens' | 'spend'>;
    const period = this.db
      .prepare('SELECT period_spend AS spend, period_at AS at FROM keys WHERE hash = ?')
      .get(hash) as { spend: number; at: number } | undefined;
    const { requests, promptTokens, outputTokens, spend } = sums;
    return { requests, promptTokens, outputTokens, spend, periodSpend: period?.spend ?? 0, periodAt: period?.at ?? 0 };
  }

  addUsage(rows: readonly UsageRow[], periods: ReadonlyMap<string, PeriodSpend>): void {
    const add = this.db.prepare(ADD);
    const level = this.db.prepare(SPEND);
    this.db.transaction(() => {
      for (const row of rows) {
        const { hash, model, hourAt, requests, errors, promptTokens, outputTokens, spend } = row;
        add.run(hash, model, hourAt, requests, errors, promptTokens, outputTokens, spend);
      }
      for (const [hash, { spend, at }] of periods) level.run(at, spend, at, spend, at, hash);
    })();
  }

  usageOf(hash: string, fromMs: number): readonly UsageRow[] {
    return this.db
      .prepare(
        `SELECT hash, model, hour_at AS hourAt, requests, errors, prompt_tokens AS promptTokens,
         output_tokens AS outputTokens, spend FROM usage WHERE hash = ? AND hour_at >= ? ORDER BY hour_at, model LIMIT ?`,
      )
      .all(hash, fromMs, MAX_USAGE_ROWS) as UsageRow[];
  }

  close(): void {
    this.db.close();
  }
}
