import { describe, expect, test } from 'vitest';
import { describeShortage, footprintOf, freeOf, grow, roomOf, shortOf, shrink } from './placement.ts';
import { makeTemplate } from './testdata/fake_world.ts';

const GIB = 2 ** 30;

describe('placement', () => {
  test('starts add up before they happen', () => {
    const one = { cpuMilli: 1000, memoryBytes: 4 * GIB };
    const free = freeOf({ cpuMilli: 4000, memoryBytes: 10 * GIB }, [one, { cpuMilli: null, memoryBytes: null }]);
    expect(free).toEqual({ cpuMilli: 3000, memoryBytes: 6 * GIB });
    expect(shortOf(free, one)).toBe(null);
    expect(shortOf(shrink(free, one), one)).toBe('memory');
    expect(shortOf(grow(shrink(free, one), one), one)).toBe(null);
  });

  test('names what is short, memory before CPU', () => {
    expect(shortOf({ cpuMilli: 500, memoryBytes: GIB }, { cpuMilli: 501, memoryBytes: GIB })).toBe('cpu');
    expect(shortOf({ cpuMilli: 0, memoryBytes: 0 }, { cpuMilli: 1, memoryBytes: 1 })).toBe('memory');
    expect(describeShortage('memory', { cpuMilli: 0, memoryBytes: -GIB }, { cpuMilli: 1, memoryBytes: GIB })).toBe(
      'needs 1.0 GiB and 0.0 GiB is free',
    );
    expect(describeShortage('cpu', { cpuMilli: 250, memoryBytes: 0 }, { cpuMilli: 500, memoryBytes: GIB })).toBe(
      'needs 500m CPU and 250m CPU is free',
    );
  });

  test('one that asks for nothing fits on a machine that is over its limit', () => {
    expect(shortOf({ cpuMilli: -1, memoryBytes: -1 }, { cpuMilli: null, memoryBytes: 0 })).toBe(null);
  });

  test('a template rules over what is known; a machine that is not known has room', () => {
    const footprints = { r: { cpuMilli: 700, memoryBytes: GIB } };
    const machine = { freeCpuMilli: 1, freeMemoryBytes: 2, footprints };
    expect(footprintOf(makeTemplate('m', { memoryBytes: 5 }), 'r', machine)).toEqual({ cpuMilli: 700, memoryBytes: 5 });
    expect(footprintOf(makeTemplate('m'), 'toString', machine)).toEqual({ cpuMilli: null, memoryBytes: null });
    expect(roomOf(machine)).toEqual({ cpuMilli: 1, memoryBytes: 2 });
    expect(shortOf(roomOf(null), { cpuMilli: 1e9, memoryBytes: 1e18 })).toBe(null);
  });
});
