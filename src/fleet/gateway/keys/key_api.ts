/** The admin's API for keys, as LiteLLM's clients call it: /key/generate, /key/info, /key/update, /key/delete, /key/block ... */
import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import { TokenmillError } from '../../../base/errors.ts';
import type { KeyRecord } from './key_store.ts';
import { hashKey, type Keys } from './keys.ts';

const MAX_KEYS = 1_000_000;
const DAY_S = 86_400;
const UNIT_S: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: DAY_S, w: 7 * DAY_S, mo: 30 * DAY_S };

const duration = z.string().regex(/^\d{1,6}(?:s|m|h|d|w|mo)$/, 'is no duration such as 30s, 30m, 30h or 30d');
const text = z.string().min(1).max(256);
const limit = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const common = {
  key_alias: text.nullish(),
  user_id: text.nullish(),
  team_id: text.nullish(),
  models: z.array(text).max(1000).nullish(),
  max_budget: z.number().min(0).finite().nullish(),
  budget_duration: duration.nullish(),
  max_parallel_requests: limit.nullish(),
  tpm_limit: limit.nullish(),
  rpm_limit: limit.nullish(),
  metadata: z.record(z.string(), z.unknown()).nullish(),
  duration: duration.nullish(),
  blocked: z.boolean().nullish(),
};
// What is not known is refused: a limit that is ignored would be believed.
const generateSchema = z.strictObject({
  ...common,
  key: z
    .string()
    .regex(/^sk-[\x21-\x7e]{13,253}$/)
    .nullish(),
});
const updateSchema = z.strictObject({ ...common, key: text });
const oneSchema = z.strictObject({ key: text });
const manySchema = z.strictObject({
  keys: z.array(text).max(1000).nullish(),
  key_aliases: z.array(text).max(0).nullish(),
});

type Common = Omit<z.infer<typeof generateSchema>, 'key'>;

function parsed<T>(schema: z.ZodType<T>, body: Buffer | null): T {
  let value: unknown;
  try {
    value = JSON.parse(body?.toString('utf8') ?? '{}');
  } catch (error) {
    throw new TokenmillError('invalid_request', `The request body is not valid JSON: ${(error as Error).message}.`);
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const field = issue?.path.join('.') ?? '';
  throw new TokenmillError('invalid_request', `${field === '' ? 'The body' : field}: ${issue?.message}.`, {
    param: field || null,
  });
}

function msOf(text: string | null | undefined): number | null {
  const match = text == null ? null : /^(\d+)([a-z]+)$/.exec(text);
  return match === null ? null : Number(match[1]) * (UNIT_S[match[2] as string] as number) * 1000;
}

const shownOf = (key: string): string => `sk-...${key.slice(-4)}`;

/** A key, or the hash that /key/info and the others also take. */
const hashOf = (key: string): string => (/^[0-9a-f]{64}$/.test(key) ? key : hashKey(key));

export class KeyApi {
  private readonly keys: Keys;

  constructor(keys: Keys) {
    this.keys = keys;
  }

  /** The JSON of the answer. @throws TokenmillError */
  handle(method: string, path: string, search: string, token: string | null, body: Buffer | null): object {
    if (!this.keys.isMaster(token)) {
      throw new TokenmillError('unauthorized', 'The keys are managed with the master key.', {
        remedy: 'Send it in the header Authorization: Bearer.',
      });
    }
    const action = `${method} ${path.slice(path.lastIndexOf('/') + 1)}`;
    switch (action) {
      case 'POST generate':
        return this.generate(body);
      case 'GET info':
        return this.info(new URLSearchParams(search).get('key'));
      case 'POST update':
        return this.update(body);
      case 'POST delete':
        return this.remove(body);
      case 'POST block':
        return this.setBlocked(body, true);
      case 'POST unblock':
        return this.setBlocked(body, false);
      default:
        throw new TokenmillError('unsupported_feature', `${method} ${path} is not supported.`, {
          remedy: 'There are /key/generate, /key/info, /key/update, /key/delete, /key/block and /key/unblock.',
        });
    }
  }

  private checkBudget(asked: Common): void {
    if (asked.max_budget != null && this.keys.options.prices.size === 0) {
      throw new TokenmillError('unsupported_feature', 'A budget needs prices, and the gateway has none.', {
        param: 'max_budget',
        remedy: 'Start it with a file of prices, or limit the key by tpm_limit.',
      });
    }
    if (asked.budget_duration != null && asked.max_budget == null)
      throw new TokenmillError('invalid_request', 'budget_duration needs max_budget.', { param: 'budget_duration' });
  }

  private put(record: KeyRecord): void {
    try {
      this.keys.options.store.put(record);
    } catch (error) {
      if (!/UNIQUE/.test(String((error as Error).message))) throw error;
      throw new TokenmillError('invalid_request', `Another key has the alias ${record.alias}.`, { param: 'key_alias' });
    }
    this.keys.changed(record);
  }

  private generate(body: Buffer | null): object {
    const asked = parsed(generateSchema, body);
    this.checkBudget(asked);
    const { store, now } = this.keys.options;
    if (store.count() >= MAX_KEYS) throw new TokenmillError('invalid_request', `There are already ${MAX_KEYS} keys.`);
    const key = asked.key ?? `sk-${randomBytes(24).toString('base64url')}`;
    const hash = hashKey(key);
    if (store.find(hash) !== null)
      throw new TokenmillError('invalid_request', 'This key exists already.', { param: 'key' });
    const lifeMs = msOf(asked.duration);
    const record: KeyRecord = {
      hash,
      shown: shownOf(key),
      alias: asked.key_alias ?? null,
      userId: asked.user_id ?? null,
      teamId: asked.team_id ?? null,
      models: asked.models ?? [],
      requestsPerMin: asked.rpm_limit ?? null,
      tokensPerMin: asked.tpm_limit ?? null,
      maxParallel: asked.max_parallel_requests ?? null,
      maxBudget: asked.max_budget ?? null,
      budgetPeriodMs: msOf(asked.budget_duration),
      blocked: asked.blocked ?? false,
      createdAt: now(),
      expiresAt: lifeMs === null ? null : now() + lifeMs,
      metadata: JSON.stringify(asked.metadata ?? {}),
    };
    this.put(record);
    return { key, token: hash, key_name: record.shown, ...this.shown(record) };
  }

  private existing(key: string): KeyRecord {
    const record = this.keys.options.store.find(hashOf(key));
    if (record === null) throw new TokenmillError('invalid_request', 'There is no such key.', { param: 'key' });
    return record;
  }

  private shown(record: KeyRecord): object {
    return {
      expires: record.expiresAt === null ? null : new Date(record.expiresAt).toISOString(),
      key_alias: record.alias,
      user_id: record.userId,
      team_id: record.teamId,
      models: record.models,
      max_budget: record.maxBudget,
      budget_duration: record.budgetPeriodMs === null ? null : `${record.budgetPeriodMs / 1000}s`,
      max_parallel_requests: record.maxParallel,
      tpm_limit: record.tokensPerMin,
      rpm_limit: record.requestsPerMin,
      metadata: JSON.parse(record.metadata) as object,
      blocked: record.blocked,
      created_at: new Date(record.createdAt).toISOString(),
    };
  }

  private info(key: string | null): object {
    if (key === null) throw new TokenmillError('invalid_request', 'The query names no key.', { param: 'key' });
    const record = this.existing(key);
    this.keys.flush();
    const { requests, promptTokens, outputTokens, spend } = this.keys.options.store.spendOf(record.hash);
    return {
      key: record.hash,
      info: {
        key_name: record.shown,
        ...this.shown(record),
        spend,
        total_requests: requests,
        prompt_tokens: promptTokens,
        completion_tokens: outputTokens,
      },
    };
  }

  private update(body: Buffer | null): object {
    const { key, ...asked } = parsed(updateSchema, body);
    const before = this.existing(key);
    if (asked.max_budget != null) this.checkBudget({ ...asked });
    const lifeMs = msOf(asked.duration);
    const pick = <T>(given: T | null | undefined, old: T): T | null => (given === undefined ? old : given);
    const record: KeyRecord = {
      ...before,
      alias: pick(asked.key_alias, before.alias),
      userId: pick(asked.user_id, before.userId),
      teamId: pick(asked.team_id, before.teamId),
      models: pick(asked.models, before.models) ?? [],
      requestsPerMin: pick(asked.rpm_limit, before.requestsPerMin),
      tokensPerMin: pick(asked.tpm_limit, before.tokensPerMin),
      maxParallel: pick(asked.max_parallel_requests, before.maxParallel),
      maxBudget: pick(asked.max_budget, before.maxBudget),
      budgetPeriodMs: asked.budget_duration === undefined ? before.budgetPeriodMs : msOf(asked.budget_duration),
      blocked: pick(asked.blocked, before.blocked) ?? false,
      expiresAt:
        asked.duration === undefined ? before.expiresAt : lifeMs === null ? null : this.keys.options.now() + lifeMs,
      metadata: asked.metadata === undefined ? before.metadata : JSON.stringify(asked.metadata ?? {}),
    };
    this.put(record);
    return { key: record.hash, key_name: record.shown, ...this.shown(record) };
  }

  private remove(body: Buffer | null): object {
    const { keys } = parsed(manySchema, body);
    const deleted: string[] = [];
    for (const key of keys ?? []) {
      const hash = hashOf(key);
      if (this.keys.options.store.remove(hash) > 0) deleted.push(key);
      this.keys.removed(hash);
    }
    return { deleted_keys: deleted };
  }

  private setBlocked(body: Buffer | null, blocked: boolean): object {
    const { key } = parsed(oneSchema, body);
    const record = { ...this.existing(key), blocked };
    this.put(record);
    return { key: record.hash, key_name: record.shown, ...this.shown(record) };
  }
}
