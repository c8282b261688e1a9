/** What this machine could do at most: the denominator of every figure of speed. */
import { cpuMeasurements, createCpuBackend, type TeamMeasurements } from '../../backends/cpu/cpu_backend.ts';
import { assert } from '../../base/assert.ts';
import { inspectMachine } from '../../config/machine.ts';
import { resolveThreads } from '../../config/resolve.ts';
import { placeThreads } from '../../config/topology.ts';

export interface Roof {
  readonly isa: string;
  readonly threads: number;
  /** GB/s of reading memory. */
  readonly bandwidthGBs: number;
  /** 10^9 multiplications and additions a second in fp32. */
  readonly fp32GFlops: number;
  /** The same of the fastest BF16 arithmetic; that of fp32 where there is none. */
  readonly bf16GFlops: number;
  readonly int8GOps: number;
  readonly team: TeamMeasurements;
}

/** The best of several: other work on the machine can only make a measurement slower. */
function best(measure: () => number): number {
  return Math.max(measure(), measure(), measure());
}

/**
 * Measures for about a second, with as many threads as a model would get (null = no wish). Throws `flag_invalid`,
 * `native_missing`, `isa_unsupported`.
 */
export function measureRoof(asked: number | null, isa = createCpuBackend().isaLevels[0]): Roof {
  assert(isa !== undefined, 'a cpu backend without instruction sets is not created');
  const facts = inspectMachine([]);
  const threads = resolveThreads({ backend: 'cpu', threads: asked }, facts);
  const machine = cpuMeasurements(threads, placeThreads(facts.cpus, threads));
  return {
    isa,
    threads,
    bandwidthGBs: best(() => machine.bandwidth()),
    fp32GFlops: best(() => machine.peak(isa, 'fp32')),
    bf16GFlops: best(() => machine.peak(isa, 'bf16')),
    team: machine.team(),
    int8GOps: best(() => machine.peak(isa, 'int8')),
  };
}
