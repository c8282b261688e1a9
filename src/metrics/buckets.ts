/** Bucket sets of the histograms, as vLLM's; each is a family that `--custom-histogram-buckets` can replace. */
import { TokenmillError } from '../base/errors.ts';

export const BUCKET_FAMILIES = {
  request_latency: [0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680],
  time_to_first_token: [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
  ],
  inter_token_latency: [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80],
  iteration_tokens: [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384],
  request_params_n: [1, 2, 5, 10, 20],
  request_num_preemptions: [1, 2, 3, 4, 5, 10, 20],
  /** Depends on the model: 1, 2, 5, 10 ... up to max_model_len. */
  request_tokens: null,
  engine_step: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
  http_duration: [0.1, 0.5, 1],
  http_duration_highr: [
    0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 7.5, 10, 30, 60,
  ],
} as const satisfies Record<string, readonly number[] | null>;

export type BucketFamily = keyof typeof BUCKET_FAMILIES;
export type CustomBuckets = Readonly<Partial<Record<BucketFamily, readonly number[]>>>;

/** 1, 2, 5, 10, 20, 50 ... not above `max`. */
export function oneTwoFive(max: number): number[] {
  const buckets: number[] = [];
  for (let decade = 1; ; decade *= 10) {
    for (const mantissa of [1, 2, 5]) {
      if (mantissa * decade > max) return buckets;
      buckets.push(mantissa * decade);
    }
  }
}

/** Upper bounds of a family for a model of `maxModelLen` tokens. */
export function bucketsOf(family: BucketFamily, maxModelLen: number, custom: CustomBuckets = {}): number[] {
  return [...(custom[family] ?? BUCKET_FAMILIES[family] ?? oneTwoFive(maxModelLen))];
}

/** Checks the parsed value of `--custom-histogram-buckets`; throws `flag_invalid`. */
export function parseCustomBuckets(value: unknown): CustomBuckets {
  const fail = (message: string): never => {
    throw new TokenmillError('flag_invalid', `--custom-histogram-buckets: ${message}.`, {
      param: 'custom_histogram_buckets',
      remedy: `Give a JSON object of ${Object.keys(BUCKET_FAMILIES).join(', ')} to increasing positive numbers.`,
    });
  };
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return fail('not an object');
  const result: Partial<Record<BucketFamily, readonly number[]>> = {};
  for (const [family, bounds] of Object.entries(value)) {
    if (!Object.hasOwn(BUCKET_FAMILIES, family)) fail(`unknown family ${JSON.stringify(family)}`);
    if (!Array.isArray(bounds) || bounds.length === 0 || bounds.length > 200)
      return fail(`${family} is not a list of 1 to 200 numbers`);
    bounds.forEach((bound: unknown, i) => {
      const previous = i === 0 ? 0 : (bounds[i - 1] as number);
      if (typeof bound !== 'number' || !Number.isFinite(bound) || bound <= previous)
        fail(`${family} is not increasing at entry ${i}`);
    });
    result[family as BucketFamily] = bounds as number[];
  }
  return result;
}
