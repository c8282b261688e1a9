/** What a doctor's report says is wrong, each with its cure. Pure. */
import { formatBytes } from '../config/format.ts';
import type { DoctorReport } from './doctor.ts';

/** The smallest models people download take about this much. */
const LEAST_CACHE_BYTES = 2 ** 30;
const LEAST_MEMORY_BYTES = 2 ** 29;

export function findProblems(report: DoctorReport): string[] {
  const problems: string[] = [];
  if (report.nativeError !== null) problems.push(report.nativeError);
  if (report.native?.isaLevels.length === 0) {
    problems.push(
      'This processor has none of the instruction sets that the cpu backend needs (AVX2 with FMA, or NEON); only --backend reference runs.',
    );
  }
  if (!report.cacheWritable) {
    problems.push(
      `The model cache ${report.cacheFolder} cannot be written; set HF_HUB_CACHE or --download-dir to a folder that can.`,
    );
  } else if (report.cacheFreeBytes !== null && report.cacheFreeBytes < LEAST_CACHE_BYTES) {
    problems.push(
      `Only ${formatBytes(report.cacheFreeBytes)} are free in ${report.cacheFolder}; make room or set HF_HUB_CACHE to another disk.`,
    );
  }
  if (report.availableMemoryBytes < LEAST_MEMORY_BYTES) {
    problems.push(
      `Only ${formatBytes(report.availableMemoryBytes)} of memory are available; stop other programs or raise the cgroup's limit.`,
    );
  }
  if (report.cpuQuota !== null && report.cpuQuota < 1) {
    problems.push(
      `The cgroup grants ${report.cpuQuota} CPUs; threads will be stopped in the middle of steps. Grant at least 1.`,
    );
  }
  return problems;
}
