import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { Rng } from '../base/rng.ts';
import { describeCpus, inspectMachine } from './machine.ts';
import { countCores, type LogicalCpu, type Place, parseCpuList, placeThreads, plainCpus } from './topology.ts';

test('lists of CPUs are read as the kernel writes them, anything else is none', () => {
  expect(parseCpuList('0-3,8,10-11\n')).toEqual([0, 1, 2, 3, 8, 10, 11]);
  expect(parseCpuList('5')).toEqual([5]);
  for (const text of ['', '\n', '3-1', '0-', 'a', '1,,2', '0-4294967295', '-1']) expect(parseCpuList(text)).toEqual([]);
});

/** `nodes` nodes of `cores` cores; hyperthread h of core c is CPU h x (all cores) + c, as Linux numbers them on x86. */
function machine(nodes: number, cores: number, hyperthreads = 1): LogicalCpu[] {
  const all = nodes * cores;
  return Array.from({ length: all * hyperthreads }, (_, cpu) => ({
    cpu,
    core: cpu % all,
    node: Math.floor((cpu % all) / cores),
  }));
}

const text = (places: readonly Place[]) => places.map(({ cpus, node }) => `${node}:${cpus.join(',')}`).join(' ');

const PLACED: readonly (readonly [string, LogicalCpu[], number, string])[] = [
  ['all cores: each thread but the first has its own', machine(1, 3), 3, '0: 0:1 0:2'],
  ['with hyperthreads a core is all of its own', machine(1, 2, 2), 2, '0: 0:1,3'],
  ['fewer threads than cores go where they like', machine(1, 4), 2, '0: 0:'],
  ['a second thread only where all have one', machine(1, 3, 2), 4, '0: 0:0,3 0:1,4 0:2,5'],
  ['two nodes, all cores', machine(2, 2), 4, '0:0,1 0:1 1:2 1:3'],
  ['what fits on a node stays there', machine(2, 4), 3, '0:0,1,2,3 0:0,1,2,3 0:0,1,2,3'],
  ['what does not is spread equally', machine(2, 3), 4, '0:0,1,2 0:0,1,2 1:3,4,5 1:3,4,5'],
  ['three nodes of which two suffice', machine(3, 2), 4, '0:0,1 0:0,1 1:2,3 1:2,3'],
  ['a node too small for its share is left out', [...machine(2, 3).slice(2)], 3, '1:3,4,5 1:3,4,5 1:3,4,5'],
  ['an affinity mask with holes', plainCpus([1, 5]), 2, '0: 0:5'],
  ['half of a core', [machine(1, 2, 2)[0] as LogicalCpu, machine(1, 2, 2)[3] as LogicalCpu], 2, '0: 0:3'],
  ['one CPU', plainCpus([7]), 1, '0:'],
];

describe('placeThreads', () => {
  test.each(PLACED)('%s', (_, cpus, threads, expected) => {
    expect(text(placeThreads(cpus, threads))).toBe(expected);
  });

  test('any machine: as many places as threads, on CPUs it has, nodes side by side, no core idle beside a doubled one', () => {
    const rng = new Rng(4);
    for (let round = 0; round < 200; round++) {
      const whole = machine(rng.int(1, 4), rng.int(1, 6), rng.int(1, 2));
      const cpus = whole.filter((_, i) => i === 0 || rng.next() < 0.8);
      const threads = rng.int(1, cpus.length);
      const places = placeThreads(cpus, threads);
      expect(places).toHaveLength(threads);
      const nodes = places.map(({ node }) => node);
      expect(nodes).toEqual([...nodes].sort((a, b) => a - b));
      for (const place of places) {
        for (const cpu of place.cpus) expect(cpus.find((one) => one.cpu === cpu)?.node).toBe(place.node);
      }
      if (threads < countCores(cpus)) continue;
      const bound = new Set(places.slice(1).flatMap((place) => place.cpus));
      const free = cpus.filter(({ cpu }) => !bound.has(cpu));
      expect(new Set(free.map(({ core }) => core)).size).toBe(threads === countCores(cpus) ? 1 : 0);
    }
  });
});

describe('what the system says', () => {
  const root = mkdtempSync(join(tmpdir(), 'tokenmill-sys-'));
  afterAll(() => rmSync(root, { recursive: true }));
  const write = (path: string, content: string) => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), `${content}\n`);
  };

  test('hyperthreads and nodes, of the CPUs that may be used', () => {
    write('two/node/online', '0-1');
    write('two/node/node0/cpulist', '0,2');
    write('two/node/node1/cpulist', '1,3');
    for (const cpu of [0, 1, 2, 3])
      write(`two/cpu/cpu${cpu}/topology/thread_siblings_list`, cpu % 2 === 0 ? '0,2' : '1,3');
    expect(describeCpus([1, 2, 3], join(root, 'two'))).toEqual([
      { cpu: 1, core: 1, node: 1 },
      { cpu: 2, core: 0, node: 0 },
      { cpu: 3, core: 1, node: 1 },
    ]);
  });

  test('a system that says nothing, or nonsense, has plain CPUs', () => {
    expect(describeCpus([4, 6], join(root, 'absent'))).toEqual(plainCpus([4, 6]));
    write('broken/node/online', '0-9999999999');
    write('broken/cpu/cpu4/topology/thread_siblings_list', '..');
    expect(describeCpus([4], join(root, 'broken'))).toEqual(plainCpus([4]));
  });

  test('this machine has CPUs', () => {
    const { cpus } = inspectMachine([]);
    expect(cpus.length).toBeGreaterThan(0);
    expect(countCores(cpus)).toBeLessThanOrEqual(cpus.length);
  });
});
