import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import * as errors from '../src/base/errors.ts';
import * as flags from '../src/config/describe.ts';
import * as fleetFile from '../src/fleet/spec/describe.ts';
import * as metrics from '../src/metrics/describe.ts';
import * as ops from '../src/ops/describe.ts';
import { renderPages } from './generate_docs.mjs';

describe('generated pages', () => {
  const pages = Object.entries(renderPages({ errors, flags, fleetFile, metrics, ops }));

  it.each(pages)('docs/%s is what its table says (npm run docs)', (name, text) => {
    expect(readFileSync(new URL(`../docs/${name}`, import.meta.url), 'utf8')).toBe(text);
  });
});
