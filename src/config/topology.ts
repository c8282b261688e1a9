/** Which CPUs the threads of a team run on. Pure; src/config/machine.ts reads what the system says. */

/** A CPU as the system numbers them: one hyperthread of a core where cores have several. */
export interface LogicalCpu {
  readonly cpu: number;
  /** Equal for the hyperthreads of one physical core. */
  readonly core: number;
  /** NUMA node: memory of the own node is the nearest. */
  readonly node: number;
}

/** Where one thread runs. */
export interface Place {
  /** It may run on each of them; empty = anywhere. */
  readonly cpus: readonly number[];
  readonly node: number;
}

/** More than the largest machine has. */
const MOST_CPUS = 65_536;

/** Numbers of a list as the Linux kernel writes them, such as `0-3,8`. Empty when it is not one. */
export function parseCpuList(text: string): number[] {
  const cpus: number[] = [];
  for (const part of text.trim().split(',')) {
    const range = /^(\d+)(?:-(\d+))?$/.exec(part);
    if (range === null) return [];
    const first = Number(range[1]);
    const last = Number(range[2] ?? range[1]);
    if (last < first || last >= MOST_CPUS) return [];
    for (let cpu = first; cpu <= last; cpu++) cpus.push(cpu);
  }
  return cpus;
}

/** Without hyperthreads and nodes, for a system that does not tell of them. */
export function plainCpus(numbers: readonly number[]): LogicalCpu[] {
  return numbers.map((cpu) => ({ cpu, core: cpu, node: 0 }));
}

export function countCores(cpus: readonly LogicalCpu[]): number {
  return new Set(cpus.map(({ core }) => core)).size;
}

/** CPUs of one physical core that may be used. */
interface Core {
  readonly node: number;
  readonly cpus: number[];
}

/**
 * Places for `threads` threads, those of a node side by side. A core takes a second thread only when each has one. A team
 * that takes all cores has its threads bound to them, but for the first: that is the engine's own, which by leaving a core
 * that others use lost less than half of what it lost there (docs/performance.md). A smaller team uses as few nodes as have
 * the cores, equally, and its threads may run anywhere on their node: two small teams then do not meet on the same cores
 * while others are idle.
 */
export function placeThreads(cpus: readonly LogicalCpu[], threads: number): Place[] {
  const nodes = groupByNode(cpus);
  const cores = nodes.flat();
  if (cores.length === 0) return [];
  const onNode = (own: readonly Core[]): Place => ({
    node: (own[0] as Core).node,
    cpus: nodes.length === 1 ? [] : own.flatMap((core) => core.cpus),
  });
  if (threads < cores.length) {
    const used = fewestNodes(nodes, threads);
    return used.flatMap((own, i) => new Array<Place>(shareOf(threads, i, used.length)).fill(onNode(own)));
  }
  const places = cores.flatMap((core, i) => new Array<Place>(shareOf(threads, i, cores.length)).fill(core));
  return [onNode(nodes[0] as Core[]), ...places.slice(1)];
}

/** Cores of each node, in the order of their numbers. */
function groupByNode(cpus: readonly LogicalCpu[]): Core[][] {
  const nodes = new Map<number, Map<number, Core>>();
  for (const { cpu, core, node } of [...cpus].sort((a, b) => a.node - b.node || a.cpu - b.cpu)) {
    const cores = nodes.get(node) ?? new Map<number, Core>();
    nodes.set(node, cores);
    const known = cores.get(core);
    if (known === undefined) cores.set(core, { node, cpus: [cpu] });
    else known.cpus.push(cpu);
  }
  return [...nodes.values()].map((cores) => [...cores.values()]);
}

/** The fewest nodes of which each has cores for an equal share of the threads; all when there are none. */
function fewestNodes(nodes: readonly Core[][], threads: number): readonly Core[][] {
  for (let count = 1; count < nodes.length; count++) {
    const share = Math.ceil(threads / count);
    const fit = nodes.filter((cores) => cores.length >= share);
    if (fit.length >= count) return fit.slice(0, count);
  }
  return nodes;
}

/** How many of `count` things the `index`-th of `parts` gets; the first ones get one more. */
function shareOf(count: number, index: number, parts: number): number {
  return Math.floor(count / parts) + (index < count % parts ? 1 : 0);
}
