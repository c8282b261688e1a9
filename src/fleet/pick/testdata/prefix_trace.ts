/**
 * Conversations against simulated replicas, each with a prefix cache of its own: how many tokens of the prompts a way of choosing
 * finds cached. Time is counted in arrivals.
 */
import { Rng } from '../../../base/rng.ts';
import { KeyedHash } from '../hash.ts';
import type { EndpointView } from '../scorers.ts';

const CHARS_PER_TOKEN = 4;
/** Of a replica's cache, as vLLM's default. */
const BLOCK_TOKENS = 16;
/** Requests a replica runs at once. */
const SLOTS = 8;

export interface Turn {
  readonly session: number;
  readonly prompt: string;
}

/** Sessions of some applications, each with its system prompt; every turn repeats all before it. */
export function makeTrace(seed: number, sessions: number, turns: number): Turn[] {
  const rng = new Rng(seed);
  const words = (tokens: number) => {
    let text = '';
    while (text.length < tokens * CHARS_PER_TOKEN) text += Math.floor(rng.next() * 36 ** 8).toString(36).padStart(8, '0');
    return text.slice(0, tokens * CHARS_PER_TOKEN);
  };
  const systems = Array.from({ length: 6 }, () => words(rng.int(200, 800)));
  const live: { readonly session: number; history: string; left: number }[] = [];
  const trace: Turn[] = [];
  let made = 0;
  while (made < sessions || live.length > 0) {
    // About 40 conversations at a time.
    if (made < sessions && (live.length === 0 || rng.next() < 1 / turns || live.length < 40)) {
      live.push({ session: made++, history: rng.pick(systems), left: rng.int(1, 2 * turns - 1) });
    }
    const index = rng.int(0, live.length - 1);
    const talk = live[index]!;
    talk.history += words(rng.int(20, 200));
    trace.push({ session: talk.session, prompt: talk.history });
    talk.history += words(rng.int(50, 400));
    if (--talk.left === 0) live.splice(index, 1);
  }
  return trace;
}

/** Exact LRU of blocks. */
class Replica {
  inFlight: number[] = [];
  requests = 0;
  private readonly cached = new Map<number, true>();
  private readonly capacity: number;
  private readonly hash = new KeyedHash(77n);

  constructor(cacheTokens: number) {
    this.capacity = cacheTokens / BLOCK_TOKENS;
  }

  /** Tokens of the prompt that were cached; all of them are afterwards. */
  run(prompt: string): number {
    const size = BLOCK_TOKENS * CHARS_PER_TOKEN;
    const keys: number[] = [];
    for (let at = 0; at + size <= prompt.length; at += size) {
      keys.push(this.hash.hash53(String(keys.at(-1)), prompt.slice(at, at + size)));
    }
    const missing = keys.findIndex((key) => !this.cached.has(key));
    const hits = missing === -1 ? keys.length : missing;
    // The end is used longest ago, so that it goes first.
    for (const key of keys.reverse()) {
      this.cached.delete(key);
      this.cached.set(key, true);
    }
    for (const key of this.cached.keys()) {
      if (this.cached.size <= this.capacity) break;
      this.cached.delete(key);
    }
    this.requests++;
    return hits * BLOCK_TOKENS;
  }
}

export interface TraceResult {
  /** Share of the prompts' tokens that were cached. */
  readonly hitShare: number;
  /** Requests of the busiest replica, of the mean. */
  readonly busiest: number;
  /** Requests that one found waiting before it, mean. */
  readonly waited: number;
}

export interface TraceSetup {
  readonly replicas: number;
  readonly cacheTokens: number;
  /** A request runs while so many for each replica arrive; 8 = all are full. */
  readonly load: number;
  /** What engines say is so many arrivals old at most. */
  readonly sampledEvery: number;
}

export type Choose = (turn: Turn, endpoints: readonly EndpointView[], number: number) => number;

export function runTrace(trace: readonly Turn[], setup: TraceSetup, choose: Choose): TraceResult {
  const { replicas, cacheTokens, load, sampledEvery } = setup;
  const all = Array.from({ length: replicas }, () => new Replica(cacheTokens));
  let sampled = all.map(viewOf);
  let hits = 0;
  let tokens = 0;
  let waited = 0;
  for (const [now, turn] of trace.entries()) {
    for (const replica of all) replica.inFlight = replica.inFlight.filter((until) => until > now);
    if (now % sampledEvery === 0) sampled = all.map(viewOf);
    const views = sampled.map((view, i) => ({ ...view, inFlight: all[i]!.inFlight.length }));
    const chosen = all[choose(turn, views, now)] as Replica;
    hits += chosen.run(turn.prompt);
    tokens += turn.prompt.length / CHARS_PER_TOKEN;
    waited += Math.max(0, chosen.inFlight.length + 1 - SLOTS);
    // Longer behind others.
    chosen.inFlight.push(now + load * replicas * Math.max(1, chosen.inFlight.length / SLOTS));
  }
  const most = Math.max(...all.map(({ requests }) => requests));
  return { hitShare: hits / tokens, busiest: most / (trace.length / replicas), waited: waited / trace.length };
}

function viewOf({ inFlight }: Replica, index: number): EndpointView {
  const running = Math.min(SLOTS, inFlight.length);
  return {
    id: `replica-${index}`,
    available: true,
    inFlight: inFlight.length,
    inFlightTokens: 0,
    waiting: inFlight.length - running,
    running,
    kvUsage: running / (SLOTS + 2),
    lora: null,
    sampleAgeMs: 0,
  };
}
