import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { renderOpsHeader } from './render_ops_header.ts';

test('native/generated/ops.h is what the op table says (scripts/gen_native_ops.mjs writes it)', () => {
  const header = readFileSync(new URL('../../../native/generated/ops.h', import.meta.url), 'utf8');
  expect(header).toBe(renderOpsHeader());
});
