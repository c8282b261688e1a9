/** Sampling on the command line, for `run` and `chat`. Ranges are checked with the request, in vLLM's words. */
import type { SamplingParams } from '../client/sampling_params.ts';
import type { ConfigOf, FlagTable } from '../config/flag_types.ts';

const FLOAT = { kind: 'float', min: -1e6, max: 1e6, default: null, group: 'own' } as const;

export const SAMPLING_FLAGS = {
  system: { kind: 'string', cli: '--system', default: null, group: 'own', doc: 'System message of the conversation.' },
  maxTokens: {
    kind: 'int',
    cli: '--max-tokens',
    aliases: ['-n'],
    min: 1,
    max: 1 << 24,
    human: true,
    default: null,
    group: 'own',
    doc: 'Most tokens of an answer. Default: the rest of the context.',
  },
  temperature: {
    ...FLOAT,
    cli: '--temperature',
    aliases: ['-t'],
    doc: "0 = always the likeliest token. Default: the model's own.",
  },
  topP: { ...FLOAT, cli: '--top-p', doc: "Nucleus sampling. Default: the model's own." },
  topK: {
    kind: 'int',
    cli: '--top-k',
    min: -1,
    max: 1 << 24,
    default: null,
    group: 'own',
    doc: "Sample among the k likeliest. Default: the model's own.",
  },
  minP: {
    ...FLOAT,
    cli: '--min-p',
    doc: "Least share of the likeliest token's probability. Default: the model's own.",
  },
  repetitionPenalty: { ...FLOAT, cli: '--repetition-penalty', doc: "Default: the model's own." },
  presencePenalty: { ...FLOAT, cli: '--presence-penalty', doc: 'Default: 0.' },
  frequencyPenalty: { ...FLOAT, cli: '--frequency-penalty', doc: 'Default: 0.' },
  stop: { kind: 'list', cli: '--stop', default: [], group: 'own', doc: 'Texts that end the answer.' },
} as const satisfies FlagTable;

/** What was given; the rest is the model's or neutral. */
export function samplingOf(own: ConfigOf<typeof SAMPLING_FLAGS>): SamplingParams {
  const given = {
    temperature: own.temperature,
    topP: own.topP,
    topK: own.topK,
    minP: own.minP,
    repetitionPenalty: own.repetitionPenalty,
    presencePenalty: own.presencePenalty,
    frequencyPenalty: own.frequencyPenalty,
  };
  const numbers = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== null));
  return { ...numbers, maxTokens: own.maxTokens, stop: own.stop };
}
