/** Fields that ask for something this version cannot do: refused by name, because a client that gets unconstrained text believes it is constrained. */
import { unsupported } from './http_errors.ts';

type Body = Readonly<Record<string, unknown>>;

interface Refusal {
  readonly field: string;
  readonly asks: (value: unknown, body: Body) => boolean;
  readonly feature: string;
  readonly remedy?: string;
}

const isSet = (value: unknown): boolean => value !== null && value !== undefined;
const isTrue = (value: unknown): boolean => value === true;
const isFilled = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && Object.keys(value).length > 0;
const typeOf = (value: unknown): unknown =>
  typeof value === 'object' && value !== null ? (value as { type?: unknown }).type : undefined;

const GUIDED = [
  'guided_json',
  'guided_regex',
  'guided_choice',
  'guided_grammar',
  'guided_decoding_backend',
  'guided_whitespace_pattern',
];

const REFUSALS: readonly Refusal[] = [
  { field: 'use_beam_search', asks: isTrue, feature: 'Beam search' },
  { field: 'logprob_token_ids', asks: isSet, feature: '`logprob_token_ids`' },
  {
    field: 'response_format',
    asks: (value) => isSet(value) && typeOf(value) !== 'text',
    feature: 'A `response_format` other than `text`',
    remedy: 'Ask for the format in the prompt and check the answer.',
  },
  {
    field: 'structured_outputs',
    asks: isSet,
    feature: '`structured_outputs`',
    remedy: 'Ask for the format in the prompt and check the answer.',
  },
  ...GUIDED.map((field) => ({ field, asks: isSet, feature: `\`${field}\`` })),
  { field: 'repetition_detection', asks: isSet, feature: '`repetition_detection`' },
  { field: 'thinking_token_budget', asks: (value) => isSet(value) && value !== -1, feature: '`thinking_token_budget`' },
  { field: 'watermarking', asks: isTrue, feature: 'Watermarking' },
  { field: 'kv_transfer_params', asks: isFilled, feature: 'KV transfer' },
  { field: 'ec_transfer_params', asks: isFilled, feature: 'Encoder cache transfer' },
  { field: 'vllm_xargs', asks: isFilled, feature: '`vllm_xargs`' },
  { field: 'stream_interval', asks: (value) => isSet(value) && value !== 1, feature: 'A `stream_interval` above 1' },
  { field: 'return_token_offsets', asks: isTrue, feature: '`return_token_offsets`' },
  { field: 'prompt_embeds', asks: isSet, feature: '`prompt_embeds`', remedy: 'Send `prompt` as text or token ids.' },
  { field: 'suffix', asks: (value) => isSet(value) && value !== '', feature: '`suffix` (fill in the middle)' },
  {
    field: 'best_of',
    asks: (value, body) => isSet(value) && value !== 1 && value !== (body['n'] ?? 1),
    feature: '`best_of` other than `n`',
    remedy: 'Use `n`.',
  },
  {
    field: 'chat_template',
    asks: isSet,
    feature: 'A `chat_template` in the request',
    remedy: 'Start the server with --chat-template, or render the prompt and use /v1/completions.',
  },
  { field: 'media_io_kwargs', asks: isFilled, feature: '`media_io_kwargs`' },
  { field: 'mm_processor_kwargs', asks: isFilled, feature: '`mm_processor_kwargs`' },
  { field: 'functions', asks: isSet, feature: '`functions`', remedy: 'Use `tools` with `tool_choice: "none"`.' },
  { field: 'function_call', asks: isSet, feature: '`function_call`' },
  { field: 'audio', asks: isSet, feature: 'Audio output' },
  {
    field: 'modalities',
    asks: (value) => Array.isArray(value) && value.some((modality) => modality !== 'text'),
    feature: 'A modality other than text',
  },
];

/** Throws `unsupported_feature` naming the first field that asks for what is not there. */
export function refuseUnsupported(body: Body): void {
  for (const { field, asks, feature, remedy } of REFUSALS) {
    if (asks(body[field], body)) throw unsupported(feature, field, remedy);
  }
}

/** Every field name above; they count as known. */
export const REFUSED_FIELDS: ReadonlySet<string> = new Set(REFUSALS.map((refusal) => refusal.field));
