import { describe, expect, test } from 'vitest';
import { Rng } from '../base/rng.ts';
import { StepCost, type StepWork } from './step_cost.ts';

type Machine = (work: StepWork) => number;

const DECODE: StepWork = { decodeRows: 8, prefillTokens: 0, attended: 8 * 300 };
const MIXED: StepWork = { decodeRows: 8, prefillTokens: 120, attended: 8 * 300 + 120 * 500 };

/** As on a processor: weights are read once a step, then arithmetic, then attention. */
function randomMachine(rng: Rng): Machine {
  const token = 10 ** (rng.next() * 3 - 2);
  const fixed = token * rng.int(0, 40);
  const row = token * (0.5 + 2 * rng.next());
  const position = token / rng.int(500, 10_000);
  return (work) => fixed + row * work.decodeRows + token * work.prefillTokens + position * work.attended;
}

function randomWork(rng: Rng): StepWork {
  const decodeRows = rng.int(0, 32);
  const prefillTokens = rng.next() < 0.6 ? 0 : rng.int(2, 400);
  const tokens = Math.max(1, decodeRows + prefillTokens);
  return { decodeRows, prefillTokens, attended: tokens * rng.int(1, 3000) };
}

function learn(cost: StepCost, machine: Machine, rng: Rng, steps: number, noise: number): void {
  for (let i = 0; i < steps; i++) {
    const work = randomWork(rng);
    cost.observe(work, machine(work) * (1 + noise * (2 * rng.next() - 1)));
  }
}

const seeds = Array.from({ length: 40 }, (_, i) => i);

describe('learns a machine', () => {
  test.each(seeds)('without noise, seed %i', (seed) => {
    const rng = new Rng(seed);
    const [cost, machine] = [new StepCost(), randomMachine(rng)];
    learn(cost, machine, rng, 60, 0);
    for (let i = 0; i < 20; i++) {
      const work = randomWork(rng);
      const scale = Math.max(machine(work), machine(MIXED));
      expect(Math.abs(cost.predict(work) - machine(work)) / scale).toBeLessThan(0.1);
    }
  });

  test.each(seeds)('from noisy steps, and again after it has become three times slower, seed %i', (seed) => {
    const rng = new Rng(seed);
    const [cost, machine] = [new StepCost(), randomMachine(rng)];
    learn(cost, machine, rng, 100, 0.2);
    for (const work of [DECODE, MIXED]) expect(Math.abs(cost.predict(work) / machine(work) - 1)).toBeLessThan(0.25);
    learn(cost, (work) => 3 * machine(work), rng, 40, 0.2);
    for (const work of [DECODE, MIXED]) expect(Math.abs(cost.predict(work) / machine(work) - 3)).toBeLessThan(0.9);
  });
});

test('a spike moves the estimate little, and it goes back', () => {
  const rng = new Rng(1);
  const [cost, machine] = [new StepCost(), randomMachine(rng)];
  learn(cost, machine, rng, 100, 0.1);
  const before = cost.predict(MIXED);
  cost.observe(MIXED, 50 * machine(MIXED));
  expect(cost.predict(MIXED) / before).toBeLessThan(1.2);
  cost.observe(DECODE, 1e9);
  learn(cost, machine, rng, 20, 0.1);
  expect(Math.abs(cost.predict(MIXED) / machine(MIXED) - 1)).toBeLessThan(0.2);
});

test('a first step that was ten times too slow is forgotten', () => {
  const rng = new Rng(2);
  const [cost, machine] = [new StepCost(), randomMachine(rng)];
  cost.observe(MIXED, 10 * machine(MIXED));
  for (let i = 0; i < 6; i++) cost.observe(MIXED, machine(MIXED));
  expect(Math.abs(cost.predict(MIXED) / machine(MIXED) - 1)).toBeLessThan(0.2);
});

test('hours of decode alone leave the cost of prefill as learned, or open', () => {
  const rng = new Rng(3);
  const [cost, machine] = [new StepCost(), randomMachine(rng)];
  learn(cost, machine, rng, 100, 0.1);
  for (let i = 0; i < 20_000; i++) cost.observe(DECODE, machine(DECODE) * (0.9 + 0.2 * rng.next()));
  expect(cost.predict(DECODE) / machine(DECODE)).toBeCloseTo(1, 0);
  expect(cost.predict(MIXED) / machine(MIXED)).toBeGreaterThan(0.5);
  expect(cost.predict(MIXED) / machine(MIXED)).toBeLessThan(2);
});

test('whatever is measured, predictions stay numbers and are not negative', () => {
  const rng = new Rng(4);
  const cost = new StepCost();
  const strange = [0, -1, Number.NaN, Number.POSITIVE_INFINITY, 1e-9, 1e12, 5, 5, 5];
  for (let i = 0; i < 5000; i++) {
    cost.observe(randomWork(rng), rng.pick(strange) * rng.next());
    if (!cost.isKnown) continue;
    const predicted = cost.predict(randomWork(rng));
    expect(predicted >= 0 && Number.isFinite(predicted), `step ${i}: ${predicted}`).toBe(true);
    expect(cost.tokensIn(50, 100)).toBeGreaterThanOrEqual(0);
  }
});

test('tokensIn is the inverse of predict', () => {
  const rng = new Rng(5);
  const cost = new StepCost();
  learn(cost, randomMachine(rng), rng, 100, 0.1);
  for (const start of [0, 17, 4000]) {
    const base = cost.predict(DECODE);
    const tokens = cost.tokensIn(80, start);
    const attended = DECODE.attended + tokens * (start + tokens / 2);
    expect(cost.predict({ decodeRows: 8, prefillTokens: tokens, attended }) - base).toBeCloseTo(80, 6);
  }
  expect(cost.tokensIn(0, 0)).toBe(0);
  expect(cost.tokensIn(-1, 0)).toBe(0);
});
