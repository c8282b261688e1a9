/**
 * Rotary position tables for every scaling that checkpoints ask for. The table is fixed at load: a token's rotation
 * depends on its position alone, never on how long the sequence has become (promise P1; vLLM does the same).
 */
import { TokenmillError } from '../base/errors.ts';
import type { ConfigFields, JsonObject } from './fields.ts';

export type RopeScaling =
  | { readonly type: 'default' }
  | { readonly type: 'linear'; readonly factor: number }
  | { readonly type: 'dynamic'; readonly factor: number; readonly originalMaxPosition: number }
  | {
      readonly type: 'llama3';
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      readonly originalMaxPosition: number;
    }
  | {
      readonly type: 'yarn';
      readonly factor: number;
      readonly originalMaxPosition: number;
      readonly betaFast: number;
      readonly betaSlow: number;
      readonly truncate: boolean;
      readonly attentionFactor: number;
    }
  | {
      readonly type: 'longrope';
      readonly shortFactor: readonly number[];
      readonly longFactor: readonly number[];
      readonly originalMaxPosition: number;
      readonly attentionFactor: number;
    };

export interface RopeConfig {
  readonly theta: number;
  /** Elements of a head that are rotated. */
  readonly rotaryDim: number;
  readonly scaling: RopeScaling;
}

const MAX_POSITION = 2 ** 24;

/**
 * From `rope_parameters` (transformers 5) or `rope_theta` + `rope_scaling` (before); inside, `rope_type` or the older `type`.
 */
export function parseRope(fields: ConfigFields, headDim: number, maxPosition: number): RopeConfig {
  const nested = fields.child('rope_parameters') ?? fields.child('rope_scaling');
  const thetaFields = nested?.has('rope_theta') ? nested : fields;
  const theta = thetaFields.float('rope_theta', 1, 1e15, 10000);
  const partial = (nested?.has('partial_rotary_factor') ? nested : fields).float('partial_rotary_factor', 0, 1, 1);
  if (partial !== 1) {
    throw new TokenmillError(
      'unsupported_feature',
      `Rotating only a part of each head (${partial}) is not supported.`,
      {
        param: 'partial_rotary_factor',
      },
    );
  }
  const scaling = nested === null ? ({ type: 'default' } as const) : parseScaling(nested, fields, headDim, maxPosition);
  return { theta, rotaryDim: headDim, scaling };
}

function parseScaling(rope: ConfigFields, top: ConfigFields, headDim: number, maxPosition: number): RopeScaling {
  const type = rope.has('rope_type') ? rope.string('rope_type') : rope.string('type', 'default');
  // Where it stands differs: inside the rope object, or beside it.
  const originalIn = rope.has('original_max_position_embeddings') ? rope : top;
  const original = originalIn.int('original_max_position_embeddings', 1, MAX_POSITION, maxPosition);
  const factor = (fallback?: number): number => rope.float('factor', 1, 1e6, fallback);
  switch (type) {
    case 'default':
      return { type };
    case 'linear':
      return { type, factor: factor() };
    case 'dynamic':
      return { type, factor: factor(), originalMaxPosition: maxPosition };
    case 'llama3': {
      const lowFreqFactor = rope.float('low_freq_factor', 1e-6, 1e6);
      const highFreqFactor = rope.float('high_freq_factor', 1e-6, 1e6);
      if (highFreqFactor <= lowFreqFactor) {
        throw rope.invalid('high_freq_factor', highFreqFactor, `more than low_freq_factor (${lowFreqFactor})`);
      }
      return { type, factor: factor(), lowFreqFactor, highFreqFactor, originalMaxPosition: original };
    }
    case 'yarn':
      return parseYarn(rope, original, factor(Math.max(1, maxPosition / original)));
    case 'su':
    case 'longrope': {
      const ratio = factor(Math.max(1, maxPosition / original));
      const scale = ratio <= 1 || original <= 1 ? 1 : Math.sqrt(1 + Math.log(ratio) / Math.log(original));
      return {
        type: 'longrope',
        shortFactor: rope.floats('short_factor', headDim / 2, 1e-6, 1e6),
        longFactor: rope.floats('long_factor', headDim / 2, 1e-6, 1e6),
        originalMaxPosition: original,
        attentionFactor: rope.float('attention_factor', 1e-6, 1e6, scale),
      };
    }
    default:
      throw new TokenmillError('unsupported_feature', `RoPE scaling ${JSON.stringify(type)} is not supported.`, {
        param: 'rope_scaling',
        remedy: 'Supported: default, linear, dynamic, llama3, yarn, longrope.',
      });
  }
}

function parseYarn(rope: ConfigFields, originalMaxPosition: number, factor: number): RopeScaling {
  const scaleOf = (mscale: number) => (factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1);
  const mscale = rope.float('mscale', 0, 1e3, 0);
  const mscaleAllDim = rope.float('mscale_all_dim', 0, 1e3, 0);
  const scale = mscale && mscaleAllDim ? scaleOf(mscale) / scaleOf(mscaleAllDim) : scaleOf(1);
  return {
    type: 'yarn',
    factor,
    originalMaxPosition,
    betaFast: rope.float('beta_fast', 1e-6, 1e6, 32),
    betaSlow: rope.float('beta_slow', 1e-6, 1e6, 1),
    truncate: rope.bool('truncate', true),
    attentionFactor: rope.float('attention_factor', 1e-6, 1e6, scale),
  };
}

/** Longest context the checkpoint is made for, scaling included (vLLM's reading of the same fields). */
export function scaledMaxPosition(rope: RopeConfig, maxPosition: number): number {
  const { scaling } = rope;
  if (scaling.type === 'linear' || scaling.type === 'dynamic') return Math.floor(maxPosition * scaling.factor);
  if (scaling.type === 'yarn') return Math.floor(scaling.originalMaxPosition * scaling.factor);
  return maxPosition;
}

/** [end - begin, rotaryDim]: of position p, cos of rotaryDim/2 angles, then their sines, scaled by the attention factor. */
export function ropeRows(rope: RopeConfig, begin: number, end: number, maxModelLen: number): Float32Array {
  const frequencies = inverseFrequencies(rope, maxModelLen);
  const { scaling } = rope;
  const scale = scaling.type === 'yarn' || scaling.type === 'longrope' ? scaling.attentionFactor : 1;
  const half = frequencies.length;
  const table = new Float32Array((end - begin) * half * 2);
  for (let p = begin; p < end; p++) {
    const row = (p - begin) * half * 2;
    for (let i = 0; i < half; i++) {
      // The angle is rounded to fp32 because every implementation that checkpoints were trained with does so.
      const angle = Math.fround(p * (frequencies[i] as number));
      table[row + i] = Math.cos(angle) * scale;
      table[row + half + i] = Math.sin(angle) * scale;
    }
  }
  return table;
}

/** Radians per position for each rotated pair, in fp32. */
export function inverseFrequencies(rope: RopeConfig, maxModelLen: number): Float32Array {
  const { theta, rotaryDim: dim, scaling } = rope;
  const plain = (base: number) => Float32Array.from({ length: dim / 2 }, (_, i) => base ** ((-2 * i) / dim));
  switch (scaling.type) {
    case 'default':
      return plain(theta);
    case 'linear':
      return plain(theta).map((frequency) => frequency / scaling.factor);
    case 'dynamic': {
      // The NTK-aware base for the longest context the factor allows: factor^2 - factor + 1 at that length.
      const stretch = scaling.factor ** 2 - (scaling.factor - 1);
      return plain(theta * stretch ** (dim / (dim - 2)));
    }
    case 'llama3':
      return plain(theta).map((frequency) => llama3Frequency(frequency, scaling));
    case 'yarn':
      return yarnFrequencies(rope, scaling);
    case 'longrope': {
      const factors = maxModelLen > scaling.originalMaxPosition ? scaling.longFactor : scaling.shortFactor;
      return plain(theta).map((frequency, i) => frequency / (factors[i] as number));
    }
  }
}

/** Llama 3.1: long waves are slowed by the factor, short ones kept, those between interpolated. */
function llama3Frequency(frequency: number, scaling: Extract<RopeScaling, { type: 'llama3' }>): number {
  const { factor, lowFreqFactor, highFreqFactor, originalMaxPosition } = scaling;
  const wavelength = (2 * Math.PI) / frequency;
  if (wavelength < originalMaxPosition / highFreqFactor) return frequency;
  if (wavelength > originalMaxPosition / lowFreqFactor) return frequency / factor;
  const smooth = (originalMaxPosition / wavelength - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
  return ((1 - smooth) * frequency) / factor + smooth * frequency;
}

/** YaRN (Peng et al., 2023): a ramp over the pair index between keeping and slowing. */
function yarnFrequencies(rope: RopeConfig, scaling: Extract<RopeScaling, { type: 'yarn' }>): Float32Array {
  const { theta, rotaryDim: dim } = rope;
  /** Pair index whose wave turns `rotations` times over the original context. */
  const pairOf = (rotations: number) =>
    (dim * Math.log(scaling.originalMaxPosition / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  let [low, high] = [pairOf(scaling.betaFast), pairOf(scaling.betaSlow)];
  if (scaling.truncate) [low, high] = [Math.floor(low), Math.ceil(high)];
  low = Math.max(low, 0);
  high = Math.min(high, dim - 1);
  if (low === high) high += 0.001;
  return Float32Array.from({ length: dim / 2 }, (_, i) => {
    const frequency = theta ** ((-2 * i) / dim);
    const slowed = Math.min(1, Math.max(0, (i - low) / (high - low)));
    return (frequency / scaling.factor) * slowed + frequency * (1 - slowed);
  });
}

/** Overrides of either spelling replace the other one; theta is inherited when the override does not name it. */
export function mergeRopeOverride(config: JsonObject, overrides: JsonObject): JsonObject {
  const given =
    'rope_parameters' in overrides ? 'rope_parameters' : 'rope_scaling' in overrides ? 'rope_scaling' : null;
  if (given === null) return { ...config, ...overrides };
  const { rope_parameters: before, ...rest } = config;
  const theta =
    typeof before === 'object' && before !== null && 'rope_theta' in before ? before['rope_theta'] : undefined;
  const inherited = theta === undefined || 'rope_theta' in rest ? {} : { rope_theta: theta };
  const { rope_scaling: _replaced, ...kept } = rest;
  return { ...inherited, ...kept, ...overrides };
}
