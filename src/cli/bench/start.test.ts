import { expect, test } from 'vitest';
import { AssertionError } from '../../base/assert.ts';
import { formatStarts, measureStarts, type StartRecord } from './start.ts';

const record = (firstTokenMs: number, weightsMapped = false): StartRecord => ({
  weightsMapped,
  loadedMs: firstTokenMs - 10,
  firstTokenMs,
  peakBytes: 300 * 2 ** 20,
  weightBytes: 200 * 2 ** 20,
});

test('kinds take turns, and the start that writes the packed weights is not counted', async () => {
  const started: string[] = [];
  const rows = await measureStarts(2, '/packed', async (flags) => {
    started.push(flags.join(' '));
    return record(100 * started.length, flags.includes('/packed'));
  });
  const [packing, mapping] = ['--packed-cache off', '--packed-cache /packed'];
  expect(started).toEqual([`${mapping} --until-packed`, packing, mapping, packing, mapping]);
  expect(rows.map(({ records }) => records.map(({ firstTokenMs }) => firstTokenMs))).toEqual([
    [200, 400],
    [300, 500],
  ]);
});

test('a start that packs where it should map is no measurement of mapping', async () => {
  await expect(measureStarts(1, '/packed', async () => record(1))).rejects.toThrow(AssertionError);
});

test('medians, and memory against the packed weights', () => {
  const lines = formatStarts([{ kind: 'packing', records: [record(30), record(50), record(900)] }]);
  expect(lines[0]).toMatch(/loaded +first token +peak memory +of the weights/);
  expect(lines.at(-1)).toMatch(/packing +40(\.0)? ms +50(\.0)? ms +300 MiB +1\.50 x/);
});
