/** `tokenmill simulate`: what a fleet file would do to a day of traffic, and what another file would, on the same requests. */
import { createReadStream, readFileSync, statSync } from 'node:fs';
import { z } from 'zod';
import { TokenmillError } from '../../base/errors.ts';
import { FLEET_FLAGS, SIMULATE_FLAGS } from '../../config/fleet_flags.ts';
import { dailyArrivals } from '../../fleet/simulator/arrival_generators.ts';
import { type Arrivals, readArrivals } from '../../fleet/simulator/arrivals.ts';
import type { ReplicaModel } from '../../fleet/simulator/replica_model.ts';
import type { SimulationResult } from '../../fleet/simulator/result.ts';
import { simulate } from '../../fleet/simulator/simulate.ts';
import { readFleet } from '../../fleet/spec/read_fleet.ts';
import { parseFleetArgs, readFleetFiles } from './command.ts';
import { comparisonText, simulationText } from './simulate_text.ts';

const { output } = FLEET_FLAGS;
const TABLE = { ...SIMULATE_FLAGS, output };
const MAX_MODEL_BYTES = 1 << 20;
/** The quietest hour of a made-up day, as a share of the busiest. */
const NIGHT = 1 / 15;

/**
 * One replica of the size most fleets begin with: llama-1b in int8 on two cores with AVX2 (docs/performance.md), 32 sequences at
 * a time. `--replica-model` gives the figures of another.
 */
const DEFAULT_MODEL: ReplicaModel = {
  slots: 32,
  start: { medianMs: 7000, sigma: 0.2 },
  wakeMs: 500,
  batches: [
    { batch: 1, tpotMs: 42, prefillMsPerToken: 10.7 },
    { batch: 8, tpotMs: 136, prefillMsPerToken: 12 },
    { batch: 32, tpotMs: 594, prefillMsPerToken: 12.4 },
  ],
};

const positive = z.number().positive().finite();
const MODEL = z.strictObject({
  slots: z.int().min(1),
  start: z.strictObject({ medianMs: positive, sigma: z.number().min(0).max(5) }),
  wakeMs: positive,
  batches: z
    .array(z.strictObject({ batch: positive, tpotMs: positive, prefillMsPerToken: positive }))
    .min(1)
    .max(1000),
});

export async function simulateCommand(args: readonly string[]): Promise<number> {
  const usage = [
    'Usage: tokenmill simulate fleet.yaml (--trace arrivals.csv | --daily REQUESTS_PER_S) [flags]',
    '',
    'Runs the scaling rules of the file in virtual time against recorded or made-up requests: replicas, objectives, cost.',
  ];
  const parsed = await parseFleetArgs(args, { usage, table: TABLE, maxPositionals: 64 });
  if (parsed === null) return 0;
  const { values, positionals } = parsed;
  const files = [{ name: 'this', spec: readFleet(readFleetFiles(positionals, usage[0] as string)) }];
  if (values.against !== null)
    files.push({ name: values.against, spec: readFleet(readFleetFiles([values.against], '')) });
  const arrivals = await arrivalsOf(values);
  const model = values.replicaModel === null ? DEFAULT_MODEL : readModel(values.replicaModel);
  const results = files.map(({ name, spec }) => ({
    name,
    result: simulate(spec, arrivals, {
      model,
      service: values.service,
      seed: values.seed,
      objectives: { ttftMs: values.sloTtftMs, tpotMs: values.sloTpotMs },
      costs: { perReplicaHour: values.replicaHourCost, asleepShare: 0.2 },
      // Rules that learn have the days before the last to do so.
      measureFromMs: values.daily === null ? 0 : (values.days - 1) * 86_400_000,
    }),
  }));
  process.stdout.write(values.output === 'json' ? `${JSON.stringify(results, null, 2)}\n` : text(results));
  return 0;
}

function text(results: readonly { readonly name: string; readonly result: SimulationResult }[]): string {
  const whole = results.flatMap(({ name, result }) => [
    ...(results.length > 1 ? [`${name}:`] : []),
    ...simulationText(result),
    '',
  ]);
  return `${[...whole, ...(results.length > 1 ? comparisonText(results) : [])].join('\n').trimEnd()}\n`;
}

async function arrivalsOf(values: {
  readonly trace: string | null;
  readonly daily: number | null;
  readonly days: number;
  readonly seed: number;
}): Promise<Arrivals> {
  if ((values.trace === null) === (values.daily === null)) {
    throw new TokenmillError('flag_invalid', 'Requests come from --trace FILE or from --daily RATE, one of them.');
  }
  if (values.daily !== null) {
    const rates = { lowPerSecond: values.daily * NIGHT, highPerSecond: values.daily };
    return dailyArrivals({ ...rates, days: values.days, seed: values.seed });
  }
  const path = values.trace as string;
  try {
    statSync(path);
  } catch (error) {
    throw unreadable(path, error);
  }
  return readArrivals(createReadStream(path, 'utf8'));
}

function readModel(path: string): ReplicaModel {
  let given: unknown;
  try {
    if (statSync(path).size > MAX_MODEL_BYTES) throw new Error('it is larger than 1 MiB');
    given = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw unreadable(path, error);
  }
  const model = MODEL.safeParse(given);
  if (model.success) return model.data;
  const [issue] = model.error.issues;
  throw new TokenmillError('flag_invalid', `${path}: ${issue?.path.join('.') || 'the file'}: ${issue?.message}.`, {
    param: '--replica-model',
    remedy: `It looks like ${JSON.stringify(DEFAULT_MODEL)}`,
  });
}

function unreadable(path: string, error: unknown): TokenmillError {
  return new TokenmillError('flag_invalid', `${path} cannot be read: ${(error as Error).message}.`, { cause: error });
}
