import { expect, test } from 'vitest';
import { describeOps } from './describe.ts';
import { OP_NAMES, opByName } from './index.ts';

test.each(OP_NAMES)('%s: the row is complete', (name) => {
  const op = opByName(name);
  expect(op.name).toBe(name);
  expect(op.doc.length).toBeGreaterThan(10);
  expect(op.cases.length).toBeGreaterThanOrEqual(2);
  expect(Object.keys(op.tolerance).length).toBeGreaterThan(0);
  // Of one rounded factor; linear_silu_mul is a product of two.
  const most = name === 'linear_silu_mul' ? 2.5e-5 : 1e-5;
  for (const bound of Object.values(op.tolerance)) expect(bound).toBeLessThanOrEqual(most);
  for (const sizes of op.cases) {
    const letters = Object.values(op.inputs).flatMap((spec) => spec.dims);
    for (const letter of letters) expect(sizes, `${name} ${JSON.stringify(sizes)}`).toHaveProperty(letter);
    for (const attr of Object.keys(op.attrs)) expect(sizes).toHaveProperty(attr);
    expect(op.check?.(sizes) ?? null).toBeNull();
    const { bytes, flops } = op.cost(sizes);
    expect(bytes).toBeGreaterThan(0);
    expect(flops).toBeGreaterThanOrEqual(0);
  }
});

test('cases have a single row, several rows, and a width no vector length divides', () => {
  for (const name of OP_NAMES) {
    const { cases } = opByName(name);
    expect(
      cases.some((sizes) => sizes['T'] === 1),
      name,
    ).toBe(true);
    expect(
      cases.some((sizes) => (sizes['T'] ?? 0) > 1),
      name,
    ).toBe(true);
    const odd = (sizes: Readonly<Record<string, number>>) =>
      ['D', 'K', 'I', 'KV', 'headDim'].some((letter) => (sizes[letter] ?? 0) % 8 !== 0);
    expect(cases.some(odd), name).toBe(true);
  }
});

test('the document lists every op under its id', () => {
  const text = describeOps();
  OP_NAMES.forEach((name, id) => {
    expect(text).toContain(`## ${id} \`${name}\``);
  });
});
