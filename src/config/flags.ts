/**
 * Every flag, once. Types, parsing, help, docs/flags.md and the config file come from this table. Names and meanings are
 * vLLM's wherever it has the flag; where a default differs the doc says so.
 */
import type { ConfigOf, FlagTable } from './flag_types.ts';

/** Name of the model that ships in the package; used when no model is named. */
export const EMBEDDED_MODEL = 'tokenmill-tiny';

const INT_MAX = Number.MAX_SAFE_INTEGER;

/** Group -> heading of the help, in the order of the help. */
export const GROUPS: Readonly<Record<string, string>> = {
  model: 'Model and tokenizer',
  device: 'Device and numbers',
  cache: 'Memory and KV cache',
  scheduler: 'Scheduler',
  sampling: 'Sampling defaults and logprobs',
  chat: 'Chat',
  server: 'HTTP server',
  logging: 'Logging and observability',
};

export const FLAGS = {
  // model
  model: {
    kind: 'string', cli: '--model', aliases: ['-m'], default: EMBEDDED_MODEL, group: 'model',
    doc: 'Folder or Hugging Face id of the model; usually given as positional argument. Default: the embedded model.',
  },
  servedModelName: {
    kind: 'list', cli: '--served-model-name', default: [], group: 'model',
    doc: 'Names accepted in the `model` field of requests. The first is reported and is the metric label. Default: the model as given.',
  },
  tokenizer: { kind: 'string', cli: '--tokenizer', default: null, group: 'model', doc: 'Folder or id of the tokenizer. Default: the model.' },
  revision: { kind: 'string', cli: '--revision', default: null, group: 'model', doc: 'Branch, tag or commit of the model on the hub. Default: main.' },
  tokenizerRevision: {
    kind: 'string', cli: '--tokenizer-revision', default: null, group: 'model', doc: 'Branch, tag or commit of the tokenizer on the hub.',
  },
  downloadDir: {
    kind: 'string', cli: '--download-dir', default: null, group: 'model',
    doc: 'Cache folder for downloads, in the layout that the Python tools share. Default: $HF_HUB_CACHE or ~/.cache/huggingface/hub.',
  },
  hfToken: { kind: 'string', cli: '--hf-token', env: 'HF_TOKEN', default: null, group: 'model', doc: 'Token for private and gated models.' },
  offline: {
    kind: 'bool', cli: '--offline', env: 'HF_HUB_OFFLINE', default: false, group: 'model', doc: 'Never use the network; only what the cache holds.',
  },
  ignorePatterns: {
    kind: 'list', cli: '--ignore-patterns', default: ['original/**/*'], group: 'model', doc: 'Files of the repository that are not downloaded.',
  },
  loadFormat: {
    kind: 'choice', cli: '--load-format', of: ['auto', 'safetensors'], default: 'auto', group: 'model', doc: 'Format of the weight files.',
  },
  hfOverrides: {
    kind: 'json', cli: '--hf-overrides', default: null, group: 'model', doc: "Patch for the model's config.json, e.g. rope_parameters.",
  },
  maxModelLen: {
    kind: 'int', cli: '--max-model-len', min: 1, max: INT_MAX, human: true, auto: true, default: null, group: 'model',
    doc: 'Most tokens of prompt and answer together. `auto` or -1: the largest that fits. Default: what the model was made for, or less if memory is short.',
  },
  seed: {
    kind: 'int', cli: '--seed', min: -INT_MAX, max: INT_MAX, default: null, group: 'model',
    doc: 'Seed from which requests without a seed of their own draw theirs, in order of arrival. Default: random.',
  },

  // device
  backend: {
    kind: 'choice', cli: '--backend', of: ['cpu', 'reference'], default: 'cpu', group: 'device',
    doc: 'What computes: native CPU kernels, or the slow TypeScript definition in fp32.',
  },
  isa: {
    kind: 'string', cli: '--isa', default: null, group: 'device',
    doc: 'Forces an instruction-set level (`tokenmill doctor` lists those of this machine). Default: the best.',
  },
  threads: {
    kind: 'int', cli: '--threads', min: 1, max: 1024, default: null, group: 'device',
    doc: 'Threads that compute. Default: physical cores granted by affinity and cgroup. Answers do not depend on it.',
  },
  dtype: {
    kind: 'choice', cli: '--dtype', of: ['auto', 'float32', 'bfloat16', 'float16'],
    synonyms: { half: 'float16', float: 'float32', fp32: 'float32', fp16: 'float16', bf16: 'bfloat16' }, default: 'auto', group: 'device',
    doc: 'Element type of weights in memory. auto: that of the checkpoint.',
  },
  quantization: {
    kind: 'choice', cli: '--quantization', aliases: ['-q'], of: ['none', 'int8'], default: 'none', group: 'device',
    doc: 'int8: linear weights are quantised per output channel at load, activations per token while running.',
  },

  // cache
  gpuMemoryUtilization: {
    kind: 'float', cli: '--gpu-memory-utilization', aliases: ['--device-memory-utilization', '--memory-utilization'], min: 0, exclusiveMin: true, max: 1,
    default: 0.9, group: 'cache', doc: "Share of the host's memory (or the cgroup's limit) that weights, scratch and KV cache may take.",
  },
  kvCacheMemoryBytes: {
    kind: 'int', cli: '--kv-cache-memory-bytes', min: 1, max: INT_MAX, human: true, default: null, group: 'cache',
    doc: 'Exact size of the KV cache; overrides the share.',
  },
  blockSize: {
    kind: 'int', cli: '--block-size', min: 1, max: 1024, default: 16, group: 'cache', doc: 'Tokens of a KV block.',
  },
  kvCacheDtype: {
    kind: 'choice', cli: '--kv-cache-dtype', of: ['auto', 'bfloat16', 'float32'], synonyms: { bf16: 'bfloat16', fp32: 'float32' }, default: 'auto',
    group: 'cache', doc: 'Element type of keys and values. auto: float32 on the reference backend or with --dtype float32, else bfloat16.',
  },
  numGpuBlocksOverride: {
    kind: 'int', cli: '--num-gpu-blocks-override', min: 1, max: INT_MAX, default: null, group: 'cache', doc: 'Exact number of KV blocks, for tests.',
  },
  enablePrefixCaching: {
    kind: 'bool', cli: '--enable-prefix-caching', default: true, group: 'cache', doc: 'Reuse KV blocks of equal prompt beginnings.',
  },

  // scheduler
  maxNumSeqs: {
    kind: 'int', cli: '--max-num-seqs', min: 1, max: 65536, human: true, default: null, group: 'scheduler', doc: 'Most sequences in one step. Default: 128.',
  },
  maxNumBatchedTokens: {
    kind: 'int', cli: '--max-num-batched-tokens', min: 1, max: 1 << 20, human: true, default: null, group: 'scheduler',
    doc: 'Token budget of one step. Default: 2048.',
  },
  enableChunkedPrefill: {
    kind: 'bool', cli: '--enable-chunked-prefill', default: true, group: 'scheduler', doc: 'Split long prompts over steps.',
  },
  schedulingPolicy: {
    kind: 'choice', cli: '--scheduling-policy', of: ['fcfs', 'priority'], default: 'fcfs', group: 'scheduler',
    doc: 'Order of waiting requests: arrival, or priority (smaller first) and then arrival.',
  },
  longPrefillTokenThreshold: {
    kind: 'int', cli: '--long-prefill-token-threshold', min: 0, max: INT_MAX, human: true, default: 0, group: 'scheduler',
    doc: 'Most prompt tokens one request gets per step; 0 = no limit.',
  },
  watermark: {
    kind: 'float', cli: '--watermark', min: 0, max: 0.99, default: 0, group: 'scheduler', doc: 'Share of KV blocks kept free when admitting.',
  },
  maxNumQueuedReqs: {
    kind: 'int', cli: '--max-num-queued-reqs', min: 1, max: INT_MAX, human: true, default: 4096, group: 'scheduler',
    doc: 'Most requests in flight (waiting and running); above it 429 with Retry-After. vLLM has no limit by default.',
  },
  maxNumQueuedTokens: {
    kind: 'int', cli: '--max-num-queued-tokens', min: 1, max: INT_MAX, human: true, default: null, group: 'scheduler',
    doc: 'Most prompt tokens still to be computed; above it 503 with Retry-After. Default: no limit.',
  },
  streamInterval: {
    kind: 'int', cli: '--stream-interval', min: 1, max: 65536, default: 1, group: 'scheduler',
    doc: 'Tokens of a stream message; the first token is always sent at once.',
  },

  // sampling
  generationConfig: {
    kind: 'string', cli: '--generation-config', default: 'auto', group: 'sampling',
    doc: "Where default sampling comes from: auto (the model's generation_config.json), vllm (neutral) or a folder.",
  },
  overrideGenerationConfig: {
    kind: 'json', cli: '--override-generation-config', default: null, group: 'sampling', doc: 'Patch for those defaults, e.g. {"temperature": 0.5}.',
  },
  maxLogprobs: {
    kind: 'int', cli: '--max-logprobs', min: -1, max: INT_MAX, default: 20, group: 'sampling', doc: 'Most logprobs a request may ask for; -1 = no cap.',
  },
  logprobsMode: {
    kind: 'choice', cli: '--logprobs-mode', of: ['raw_logprobs', 'processed_logprobs', 'raw_logits', 'processed_logits'], default: 'raw_logprobs',
    group: 'sampling', doc: 'Numbers returned as logprobs: before or after penalties, masks, temperature and truncation.',
  },
  returnTokensAsTokenIds: {
    kind: 'bool', cli: '--return-tokens-as-token-ids', default: false, group: 'sampling', doc: 'Tokens in logprobs are written as `token_id:N`.',
  },

  // chat
  chatTemplate: { kind: 'string', cli: '--chat-template', default: null, group: 'chat', doc: "File or one-line template that replaces the model's." },
  trustRequestChatTemplate: {
    kind: 'bool', cli: '--trust-request-chat-template', default: false, group: 'chat', doc: 'Allow `chat_template` in requests.',
  },
  defaultChatTemplateKwargs: {
    kind: 'json', cli: '--default-chat-template-kwargs', default: null, group: 'chat', doc: "Template variables under those of the request.",
  },
  responseRole: { kind: 'string', cli: '--response-role', default: 'assistant', group: 'chat', doc: 'Role of the answer.' },

  // server
  host: { kind: 'string', cli: '--host', default: '127.0.0.1', group: 'server', doc: 'Address to bind. vLLM binds all interfaces by default.' },
  port: { kind: 'int', cli: '--port', min: 0, max: 65535, default: 8000, group: 'server', doc: 'TCP port; 0 = a free one.' },
  apiKey: {
    kind: 'list', cli: '--api-key', env: 'VLLM_API_KEY', default: [], group: 'server',
    doc: 'Keys of which requests must carry one (Authorization: Bearer). Everything but /health, /ready, /ping and /metrics asks for it.',
  },
  allowedOrigins: { kind: 'list', cli: '--allowed-origins', default: [], group: 'server', doc: 'CORS origins; * = all.' },
  allowedMethods: { kind: 'list', cli: '--allowed-methods', default: ['*'], group: 'server', doc: 'CORS methods.' },
  allowedHeaders: { kind: 'list', cli: '--allowed-headers', default: ['*'], group: 'server', doc: 'CORS headers.' },
  allowCredentials: { kind: 'bool', cli: '--allow-credentials', default: false, group: 'server', doc: 'CORS credentials.' },
  rootPath: { kind: 'string', cli: '--root-path', default: '', group: 'server', doc: 'Path prefix behind a proxy.' },
  maxBodyBytes: {
    kind: 'int', cli: '--max-body-bytes', env: 'VLLM_HTTP_MAX_REQUEST_BODY_SIZE', min: 1024, max: INT_MAX, human: true, default: 32 * 1024 * 1024,
    group: 'server', doc: 'Largest request body.',
  },
  shutdownTimeout: {
    kind: 'float', cli: '--shutdown-timeout', min: 0, max: 86400, default: 30, group: 'server',
    doc: 'Seconds that running requests get after SIGTERM; 0 = abort at once (default of vLLM).',
  },
  enableRequestIdHeaders: {
    kind: 'bool', cli: '--enable-request-id-headers', default: false, group: 'server', doc: 'Send X-Request-Id back.',
  },
  enablePromptTokensDetails: {
    kind: 'bool', cli: '--enable-prompt-tokens-details', default: false, group: 'server', doc: 'Usage tells how many prompt tokens were cached.',
  },
  enableForceIncludeUsage: {
    kind: 'bool', cli: '--enable-force-include-usage', default: false, group: 'server', doc: 'Every stream ends with a usage chunk.',
  },
  sseKeepAliveInterval: {
    kind: 'float', cli: '--sse-keep-alive-interval', min: 0, max: 86400, default: 0, group: 'server',
    doc: 'Seconds after which an idle stream gets a comment line; 0 = never.',
  },
  devMode: {
    kind: 'bool', cli: '--dev-mode', env: 'VLLM_SERVER_DEV_MODE', default: false, group: 'server', doc: 'Routes for development, e.g. /reset_prefix_cache.',
  },
  stuckLimit: {
    kind: 'float', cli: '--stuck-limit', min: 1, max: 86400, default: 60, group: 'server',
    doc: 'Seconds that one engine step may take before /health turns red.',
  },

  // logging
  logLevel: {
    kind: 'choice', cli: '--log-level', aliases: ['--uvicorn-log-level'], of: ['trace', 'debug', 'info', 'warn', 'error', 'silent'],
    synonyms: { warning: 'warn', critical: 'error' }, default: 'info', group: 'logging', doc: 'Least severe log lines written.',
  },
  disableAccessLog: {
    kind: 'bool', cli: '--disable-access-log', aliases: ['--disable-uvicorn-access-log'], default: false, group: 'logging', doc: 'No log line per HTTP request.',
  },
  disableLogStats: {
    kind: 'bool', cli: '--disable-log-stats', default: false, group: 'logging', doc: 'No engine statistics, neither logged nor in /metrics.',
  },
  legacyMetrics: {
    kind: 'bool', cli: '--legacy-metrics', default: false, group: 'logging', doc: 'Also export metric names that vLLM has dropped.',
  },
} as const satisfies FlagTable;

/** What was asked for; frozen after parsing. */
export type EngineConfig = ConfigOf<typeof FLAGS>;
