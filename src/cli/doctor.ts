/** `tokenmill doctor`: what this machine is, what it can do (measured), and what is wrong with it. */
import { constants } from 'node:fs';
import { access, mkdir, statfs } from 'node:fs/promises';
import { cpus } from 'node:os';
import { type CpuMeasurements, cpuMeasurements, type TeamMeasurements } from '../backends/cpu/cpu_backend.ts';
import { version } from '../base/package_root.ts';
import { parseCommandLine } from '../config/command_line.ts';
import { FLAGS } from '../config/flags.ts';
import { formatBytes } from '../config/format.ts';
import { helpText } from '../config/help.ts';
import { inspectCgroup, inspectMachine } from '../config/machine.ts';
import { resolveThreads } from '../config/resolve.ts';
import { countCores, type Place, placeThreads } from '../config/topology.ts';
import { createBackend } from '../executor/backends.ts';
import { hubSettings } from '../hub/hub_settings.ts';
import { findProblems } from './doctor_problems.ts';
import { alignColumns } from './plan_text.ts';
import { teamText } from './team_text.ts';

const DOCTOR_FLAGS = {
  threads: { ...FLAGS.threads, group: 'own' },
  downloadDir: { ...FLAGS.downloadDir, group: 'own' },
  measure: {
    kind: 'bool',
    cli: '--measure',
    default: true,
    group: 'own',
    doc: 'Measure memory bandwidth and arithmetic peak (about two seconds).',
  },
  json: { kind: 'bool', cli: '--json', default: false, group: 'own', doc: 'The findings as JSON.' },
} as const;

const USAGE = ['Usage: tokenmill doctor [flags]', '', 'Examines this machine. Exit status 1 when something is wrong.'];

export interface PeakReport {
  readonly isa: string;
  readonly kind: 'fp32' | 'bf16' | 'int8';
  /** 10^9 operations per second. */
  readonly gops: number;
}

export interface DoctorReport {
  readonly version: string;
  readonly node: string;
  readonly platform: string;
  readonly cpu: string;
  readonly logicalCpus: number;
  readonly physicalCores: number;
  readonly numaNodes: number;
  readonly cpuQuota: number | null;
  readonly totalMemoryBytes: number;
  readonly availableMemoryBytes: number;
  readonly cgroupMemoryLimitBytes: number | null;
  /** Null = the native binary is missing; `nativeError` says why. */
  readonly native: null | {
    readonly isaLevels: readonly string[];
    readonly features: readonly string[];
    readonly cacheBytes: { readonly l1d: number; readonly l2: number; readonly l3: number };
    readonly threads: number;
    /** Null when not measured. */
    readonly team: TeamMeasurements | null;
    /** GB/s; null when not measured. */
    readonly bandwidth: number | null;
    readonly peaks: readonly PeakReport[];
  };
  readonly nativeError: string | null;
  readonly cacheFolder: string;
  readonly cacheWritable: boolean;
  /** Null = not known. */
  readonly cacheFreeBytes: number | null;
  readonly offline: boolean;
}

export async function doctorCommand(args: readonly string[]): Promise<number> {
  const { values, help, notes } = await parseCommandLine(args, DOCTOR_FLAGS);
  if (help !== null) {
    console.log(helpText({ usage: USAGE, table: DOCTOR_FLAGS, groups: { own: 'What to examine' } }, help));
    return 0;
  }
  for (const note of notes) process.stderr.write(`${note}\n`);
  const report = await examine(values.threads, values.downloadDir, values.measure);
  const problems = findProblems(report);
  console.log(values.json ? JSON.stringify({ ...report, problems }, null, 2) : reportText(report, problems));
  return problems.length === 0 ? 0 : 1;
}

async function examine(threads: number | null, downloadDir: string | null, measure: boolean): Promise<DoctorReport> {
  const machine = inspectMachine([]);
  const used = resolveThreads({ backend: 'cpu', threads }, machine);
  let native: DoctorReport['native'] = null;
  let nativeError: string | null = null;
  try {
    native = examineNative(used, placeThreads(machine.cpus, used), measure);
  } catch (error) {
    nativeError = error instanceof Error ? error.message : String(error);
  }
  const settings = await hubSettings(downloadDir === null ? {} : { cacheDir: downloadDir });
  return {
    version: version(),
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    logicalCpus: machine.cpus.length,
    physicalCores: countCores(machine.cpus),
    numaNodes: new Set(machine.cpus.map(({ node }) => node)).size,
    cpuQuota: machine.cpuQuota,
    totalMemoryBytes: machine.totalMemoryBytes,
    availableMemoryBytes: machine.availableMemoryBytes,
    cgroupMemoryLimitBytes: inspectCgroup().memoryLimit,
    native,
    nativeError,
    cacheFolder: settings.cacheDir,
    cacheWritable: await isWritable(settings.cacheDir),
    cacheFreeBytes: await freeBytes(settings.cacheDir),
    offline: settings.offline,
  };
}

function examineNative(threads: number, places: readonly Place[], measure: boolean) {
  const { isaLevels } = createBackend('cpu');
  const measurements = cpuMeasurements(threads, places);
  const { features, l1dBytes, l2Bytes, l3Bytes } = measurements.cpu;
  return {
    isaLevels,
    features,
    cacheBytes: { l1d: l1dBytes, l2: l2Bytes, l3: l3Bytes },
    threads,
    team: measure ? measurements.team() : null,
    bandwidth: measure ? measurements.bandwidth() : null,
    peaks: measure ? measurePeaks(measurements, isaLevels) : [],
  };
}

function measurePeaks(measurements: CpuMeasurements, isaLevels: readonly string[]): PeakReport[] {
  const kinds = ['fp32', 'bf16', 'int8'] as const;
  return isaLevels.flatMap((isa) => kinds.map((kind) => ({ isa, kind, gops: measurements.peak(isa, kind) })));
}

/** Makes the folder, as a download would. */
async function isWritable(folder: string): Promise<boolean> {
  try {
    await mkdir(folder, { recursive: true });
    await access(folder, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

async function freeBytes(folder: string): Promise<number | null> {
  try {
    const { bavail, bsize } = await statfs(folder);
    return bavail * bsize;
  } catch {
    return null;
  }
}

function reportText(report: DoctorReport, problems: readonly string[]): string {
  const { native } = report;
  const quota = report.cpuQuota === null ? 'no cgroup quota' : `cgroup quota ${report.cpuQuota} CPUs`;
  const nodes = report.numaNodes === 1 ? '' : ` on ${report.numaNodes} NUMA nodes`;
  const limit =
    report.cgroupMemoryLimitBytes === null
      ? 'no cgroup limit'
      : `cgroup limit ${formatBytes(report.cgroupMemoryLimitBytes)}`;
  const rows: string[][] = [
    ['tokenmill', `${report.version} on Node ${report.node}, ${report.platform}`],
    ['processor', report.cpu],
    ['cores', `${report.physicalCores} physical, ${report.logicalCpus} logical${nodes}, ${quota}`],
    [
      'memory',
      `${formatBytes(report.availableMemoryBytes)} available of ${formatBytes(report.totalMemoryBytes)}, ${limit}`,
    ],
    ['native binary', native === null ? 'missing' : 'found'],
  ];
  if (native !== null) {
    const { l1d, l2, l3 } = native.cacheBytes;
    rows.push(['ISA levels', native.isaLevels.join(', ') || 'none'], ['features', native.features.join(', ')]);
    rows.push(['caches', `L1d ${formatBytes(l1d)}, L2 ${formatBytes(l2)}, L3 ${formatBytes(l3)}`]);
    if (native.bandwidth !== null)
      rows.push(['bandwidth', `${native.bandwidth.toFixed(1)} GB/s with ${native.threads} threads`]);
    if (native.team !== null) rows.push(['team', teamText(native.threads, native.team)]);
    for (const { isa, kind, gops } of native.peaks) rows.push([`peak ${isa}`, `${kind} ${gops.toFixed(0)} Gop/s`]);
  }
  const free = report.cacheFreeBytes === null ? '' : `, ${formatBytes(report.cacheFreeBytes)} free`;
  rows.push(['model cache', `${report.cacheFolder}${free}${report.offline ? ', offline mode' : ''}`]);
  const verdict =
    problems.length === 0 ? 'Nothing is wrong.' : problems.map((problem) => `PROBLEM: ${problem}`).join('\n');
  return `${alignColumns(rows)}\n\n${verdict}`;
}
