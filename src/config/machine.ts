/** Measures the machine as this process may use it: memory and CPUs under cgroup limits and affinity. An edge. */
import { readFileSync } from 'node:fs';
import { availableParallelism, freemem, homedir, totalmem } from 'node:os';
import { join } from 'node:path';
import type { MachineFacts } from './facts.ts';
import { type LogicalCpu, parseCpuList, plainCpus } from './topology.ts';

/** @param isaLevels levels of the cpu backend, best first; empty when it is not used or can run none */
export function inspectMachine(isaLevels: readonly string[]): MachineFacts {
  const meminfo = readText('/proc/meminfo');
  const available = /^MemAvailable:\s+(\d+) kB$/m.exec(meminfo ?? '');
  const hostAvailable = available ? Number(available[1]) * 1024 : freemem();
  const cgroup = inspectCgroup();
  const total = Math.min(totalmem(), cgroup.memoryLimit ?? Number.POSITIVE_INFINITY);
  const cgroupAvailable =
    cgroup.memoryLimit === null ? Number.POSITIVE_INFINITY : cgroup.memoryLimit - cgroup.memoryUsed;
  return {
    totalMemoryBytes: total,
    availableMemoryBytes: Math.max(0, Math.min(hostAvailable, cgroupAvailable)),
    cpus: inspectCpus(),
    cpuQuota: cgroup.cpuQuota,
    cacheFolder: join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'tokenmill'),
    isaLevels,
  };
}

export interface CgroupFacts {
  /** Bytes; null = no limit. */
  readonly memoryLimit: number | null;
  /** Bytes in use that cannot be given back (page cache excluded). */
  readonly memoryUsed: number;
  /** CPUs' worth of time; null = no quota. */
  readonly cpuQuota: number | null;
}

/** Limits of this process's cgroup (v2, else v1), the tightest of all its ancestors. */
export function inspectCgroup(): CgroupFacts {
  const own = readText('/proc/self/cgroup') ?? '';
  const v2 = /^0::(.*)$/m.exec(own);
  let facts: CgroupFacts = { memoryLimit: null, memoryUsed: 0, cpuQuota: null };
  for (const folder of ancestors('/sys/fs/cgroup', v2?.[1] ?? '/')) {
    const [quota, period] = (readText(`${folder}/cpu.max`) ?? '').split(/\s+/).map(Number);
    facts = tighten(facts, {
      memoryLimit: limit(readText(`${folder}/memory.max`)),
      memoryUsed: usedBytes(folder, 'memory.current', 'inactive_file'),
      cpuQuota: quota && period ? quota / period : null,
    });
  }
  const v1Quota = Number(readText('/sys/fs/cgroup/cpu/cpu.cfs_quota_us') ?? Number.NaN);
  const v1Period = Number(readText('/sys/fs/cgroup/cpu/cpu.cfs_period_us') ?? Number.NaN);
  return tighten(facts, {
    memoryLimit: limit(readText('/sys/fs/cgroup/memory/memory.limit_in_bytes')),
    memoryUsed: usedBytes('/sys/fs/cgroup/memory', 'memory.usage_in_bytes', 'total_inactive_file'),
    cpuQuota: v1Quota > 0 && v1Period > 0 ? v1Quota / v1Period : null,
  });
}

function tighten(a: CgroupFacts, b: CgroupFacts): CgroupFacts {
  const memory = b.memoryLimit !== null && (a.memoryLimit === null || b.memoryLimit < a.memoryLimit) ? b : a;
  const quotas = [a.cpuQuota, b.cpuQuota].filter((quota) => quota !== null);
  return {
    memoryLimit: memory.memoryLimit,
    memoryUsed: memory.memoryUsed,
    cpuQuota: quotas.length > 0 ? Math.min(...quotas) : null,
  };
}

function ancestors(root: string, path: string): string[] {
  const folders = [root];
  for (const part of path.split('/').filter((name) => name !== '' && name !== '..'))
    folders.push(`${folders.at(-1)}/${part}`);
  return folders;
}

/** A limit beyond any real memory is how cgroup v1 spells "none". */
function limit(text: string | null): number | null {
  const value = Number(text ?? Number.NaN);
  return Number.isFinite(value) && value > 0 && value < 2 ** 60 ? value : null;
}

function usedBytes(folder: string, file: string, reclaimable: string): number {
  const used = Number(readText(`${folder}/${file}`) ?? 0);
  const stat = new RegExp(`^${reclaimable} (\\d+)$`, 'm').exec(readText(`${folder}/memory.stat`) ?? '');
  return Math.max(0, used - Number(stat?.[1] ?? 0));
}

/** CPUs of the process's affinity mask. That of the main thread: others may be bound to some of them. */
function inspectCpus(): LogicalCpu[] {
  const allowed = /^Cpus_allowed_list:\s*(.*)$/m.exec(readText('/proc/self/status') ?? '')?.[1] ?? '';
  const numbers = parseCpuList(allowed);
  if (numbers.length === 0) return plainCpus(Array.from({ length: availableParallelism() }, (_, cpu) => cpu));
  return describeCpus(numbers, '/sys/devices/system');
}

/** @param root folder with the kernel's `cpu` and `node`; what it does not say is as on a machine without it */
export function describeCpus(numbers: readonly number[], root: string): LogicalCpu[] {
  const nodes = new Map<number, number>();
  for (const node of parseCpuList(readText(`${root}/node/online`) ?? '')) {
    for (const cpu of parseCpuList(readText(`${root}/node/node${node}/cpulist`) ?? '')) nodes.set(cpu, node);
  }
  return numbers.map((cpu) => {
    const [first] = parseCpuList(readText(`${root}/cpu/cpu${cpu}/topology/thread_siblings_list`) ?? '');
    return { cpu, core: first ?? cpu, node: nodes.get(cpu) ?? 0 };
  });
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}
