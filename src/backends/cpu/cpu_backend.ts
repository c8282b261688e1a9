/** The `cpu` backend: our C++ kernels behind one native call a step. */
import { TokenmillError } from '../../base/errors.ts';
import type { Backend, ThreadPlace } from '../backend.ts';
import { CpuModel } from './cpu_model.ts';
import { loadNative, type NativeCpu } from './native_binding.ts';
import { planPacked } from './packed_weights.ts';
import { runOp } from './run_op.ts';

/** What it takes to let several threads work together, in microseconds. */
export interface TeamMeasurements {
  /** Until all have met at the end of an op. */
  readonly barrierUs: number;
  /** A step without work, as soon as the last one ended; and after the others went to sleep. */
  readonly runUs: number;
  readonly wakeUs: number;
}

export interface CpuMeasurements {
  readonly cpu: NativeCpu;
  /** GB/s of reading main memory. */
  bandwidth(): number;
  team(): TeamMeasurements;
  /** 10^9 operations per second of arithmetic alone. */
  peak(isa: string, kind: 'fp32' | 'bf16' | 'int8'): number;
}

/** Larger than any cache. */
const BANDWIDTH_BYTES = 512 * 2 ** 20;

/** Longer than a thread that waits for work stays awake. */
const ASLEEP_US = 1000;

/** Throws TokenmillError `native_missing` when there is no binary for this machine. */
export function createCpuBackend(): Backend {
  const isaLevels = loadNative().isaLevels(process.env['TOKENMILL_TEST_EMULATED'] === '1');
  return {
    name: 'cpu',
    isaLevels,
    runOp: (run) => runOp(run, chooseIsa(isaLevels, run.isa)),
    load: (options) => new CpuModel(options, chooseIsa(isaLevels, options.isa)),
    findPacked: planPacked,
  };
}

/** For `doctor` and `bench kernels`; the calling thread is bound while something is measured. */
export function cpuMeasurements(threads: number, places: readonly ThreadPlace[]): CpuMeasurements {
  const binding = loadNative();
  const kinds = ['fp32', 'bf16', 'int8'];
  const team = { threads, places, ownsThread: true };
  return {
    cpu: binding.cpu(),
    bandwidth: () => binding.measureBandwidth(team, BANDWIDTH_BYTES),
    team: () => {
      const { barrierUs, runUs } = binding.measureTeam(team, 0);
      return { barrierUs, runUs, wakeUs: binding.measureTeam(team, ASLEEP_US).runUs };
    },
    peak: (isa, kind) => binding.measurePeak(team, isa, kinds.indexOf(kind)),
  };
}

function chooseIsa(levels: readonly string[], forced: string | undefined): string {
  const wanted = forced ?? process.env['TOKENMILL_ISA'] ?? '';
  const isa = wanted === '' ? levels.find((level) => !level.endsWith('_emulated')) : wanted;
  if (isa !== undefined && levels.includes(isa)) return isa;
  const available = levels.length > 0 ? `Available: ${levels.join(', ')}.` : 'The kernels need AVX2 with FMA, or NEON.';
  throw new TokenmillError(
    'isa_unsupported',
    `This processor cannot run ${isa === undefined ? 'the cpu backend' : `the ISA level ${isa}`}.`,
    {
      param: 'isa',
      remedy: `${available} Or use --backend reference.`,
    },
  );
}
