import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { SimulationResult } from '../../fleet/simulator/result.ts';
import { simulateCommand } from './simulate.ts';

let folder: string;
let written: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tokenmill-simulate-'));
  written = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    written += text;
    return true;
  });
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true, force: true });
});

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

const fleet = (replicas: string): string => `models:\n  - name: a\n    replicas: ${replicas}\n`;
const TRACE = ['time_s,prompt_tokens,output_tokens', ...Array.from({ length: 300 }, (_, i) => `${i},100,20`)].join(
  '\n',
);

test('a recorded trace: two fleets on the same requests', async () => {
  const [one, three] = [file('one.yaml', fleet('1')), file('three.yaml', fleet('3'))];
  const trace = file('arrivals.csv', TRACE);
  expect(await simulateCommand([one, '--trace', trace, '--against', three, '-o', 'json'])).toBe(0);
  const results = JSON.parse(written) as { name: string; result: SimulationResult }[];
  expect(results.map(({ name }) => name)).toEqual(['this', three]);
  const [few, many] = results.map(({ result }) => result);
  expect(many?.replicaHours).toBeCloseTo(3 * (few?.replicaHours ?? 0), 1);
  expect(few?.ttftMs?.p95).toBeGreaterThan(many?.ttftMs?.p95 ?? Number.POSITIVE_INFINITY);
});

test('made-up days, for people', async () => {
  const path = file('fleet.yaml', fleet('{min: 1, max: 4}\n    scaling: {concurrency: 8}'));
  expect(await simulateCommand([path, '--daily', '0.4', '--slo-ttft-ms', '5000'])).toBe(0);
  expect(written).toMatch(/replica-hours/);
  expect(written).toMatch(/holds {2}bounds/);
});

test('refusals name the cause', async () => {
  const path = file('fleet.yaml', fleet('1'));
  await expect(simulateCommand([path])).rejects.toThrow('--trace FILE or from --daily RATE');
  await expect(simulateCommand([path, '--trace', join(folder, 'none.csv')])).rejects.toThrow('none.csv cannot be read');
  await expect(simulateCommand([path, '--trace', file('bad.csv', 'a,b\n')])).rejects.toThrow('arrivals, line 1');
  const model = file('model.json', '{"slots": 0}');
  await expect(simulateCommand([path, '--daily', '1', '--replica-model', model])).rejects.toThrow('slots');
  await expect(simulateCommand([path, '--daily', '1', '--service', 'x/y'])).rejects.toThrow('No service has the id');
});
