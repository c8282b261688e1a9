/** What the HTTP edge is told; the CLI makes it from the flags table. */
import type { Logger } from 'pino';
import type { EngineConfig } from '../config/flags.ts';
import { type CustomBuckets, parseCustomBuckets } from '../metrics/buckets.ts';
import { type TlsConfig, tlsConfigOf } from './tls.ts';

export interface ServerConfig {
  /** Reported by /version and in system_fingerprint. */
  readonly version: string;
  /** Empty = no key needed. */
  readonly apiKeys: readonly string[];
  readonly allowedOrigins: readonly string[];
  readonly allowedMethods: readonly string[];
  readonly allowedHeaders: readonly string[];
  readonly allowCredentials: boolean;
  /** Path prefix added by a proxy in front; routes match with and without it, links and the OpenAPI document carry it. */
  readonly rootPath: string;
  /** Null = plain HTTP. */
  readonly tls: TlsConfig | null;
  /** Largest request body; more is 413. */
  readonly maxBodyBytes: number;
  /** Bytes of all bodies being read at once; more is 503, so that many large bodies cannot exhaust memory. */
  readonly maxBodyBytesTotal: number;
  readonly maxHeaderBytes: number;
  readonly maxHeaderCount: number;
  /** Unsent bytes of one answer before its client counts as not reading and is cut off. */
  readonly maxUnsentBytes: number;
  /** Seconds that running requests get after SIGTERM; 0 ends them at once. */
  readonly shutdownTimeoutS: number;
  /** Seconds in which a client must have sent its whole request. */
  readonly requestTimeoutS: number;
  /** Wait for the first output before sending a stream's headers, so that errors keep their status; in ms. */
  readonly streamHeaderDelayMs: number;
  /** Comment line on idle streams every so many seconds; 0 = off. */
  readonly sseKeepAliveIntervalS: number;
  readonly enableRequestIdHeaders: boolean;
  readonly disableAccessLog: boolean;
  /** Paths left out of the access log. */
  readonly disableAccessLogForEndpoints: readonly string[];
  /** Prompts go to the log (clipped to maxLogLen characters). Off: no prompt is ever logged. */
  readonly enableLogRequests: boolean;
  readonly maxLogLen: number;
  /** Leaves /metrics without the engine's families and the log without its stats line. */
  readonly disableLogStats: boolean;
  readonly statsIntervalS: number;
  /** No /docs and no /openapi.json. */
  readonly disableDocs: boolean;
  /** Usage shows cached tokens. */
  readonly enablePromptTokensDetails: boolean;
  /** A usage chunk on every stream. */
  readonly enableForceIncludeUsage: boolean;
  readonly returnTokensAsTokenIds: boolean;
  readonly responseRole: string;
  /** Management routes such as /reset_prefix_cache. */
  readonly devMode: boolean;
  readonly legacyMetrics: boolean;
  readonly customHistogramBuckets: CustomBuckets;
  /** Where log lines go; silent when null. */
  readonly logger: Logger | null;
}

export const DEFAULT_SERVER_CONFIG: ServerConfig = {
  version: '0.0.0',
  apiKeys: [],
  allowedOrigins: [],
  allowedMethods: ['*'],
  allowedHeaders: ['*'],
  allowCredentials: false,
  rootPath: '',
  tls: null,
  maxBodyBytes: 32 * 2 ** 20,
  maxBodyBytesTotal: 256 * 2 ** 20,
  maxHeaderBytes: 64 * 2 ** 10,
  maxHeaderCount: 256,
  maxUnsentBytes: 2 ** 20,
  shutdownTimeoutS: 30,
  requestTimeoutS: 120,
  streamHeaderDelayMs: 1000,
  sseKeepAliveIntervalS: 0,
  enableRequestIdHeaders: false,
  disableAccessLog: false,
  disableAccessLogForEndpoints: [],
  enableLogRequests: false,
  maxLogLen: 200,
  disableLogStats: false,
  statsIntervalS: 10,
  disableDocs: false,
  enablePromptTokensDetails: false,
  enableForceIncludeUsage: false,
  returnTokensAsTokenIds: false,
  responseRole: 'assistant',
  devMode: false,
  legacyMetrics: false,
  customHistogramBuckets: {},
  logger: null,
};

/** The server's part of the flags. Throws `flag_invalid` for custom buckets that are none and TLS flags that make no sense together. */
export function serverConfigOf(flags: EngineConfig, more: Pick<ServerConfig, 'version' | 'logger'>): ServerConfig {
  const quiet = flags.disableAccessLogForEndpoints.split(',').map((path) => path.trim());
  return {
    ...DEFAULT_SERVER_CONFIG,
    ...more,
    apiKeys: flags.apiKey,
    allowedOrigins: flags.allowedOrigins,
    allowedMethods: flags.allowedMethods,
    allowedHeaders: flags.allowedHeaders,
    allowCredentials: flags.allowCredentials,
    rootPath: flags.rootPath,
    tls: tlsConfigOf(flags),
    maxBodyBytes: flags.maxBodyBytes,
    maxBodyBytesTotal: Math.max(DEFAULT_SERVER_CONFIG.maxBodyBytesTotal, 8 * flags.maxBodyBytes),
    maxHeaderBytes: flags.maxHeaderBytes,
    maxHeaderCount: flags.maxHeaderCount,
    shutdownTimeoutS: flags.shutdownTimeout,
    sseKeepAliveIntervalS: flags.sseKeepAliveInterval,
    enableRequestIdHeaders: flags.enableRequestIdHeaders,
    disableAccessLog: flags.disableAccessLog,
    disableAccessLogForEndpoints: quiet.filter((path) => path !== ''),
    enableLogRequests: flags.enableLogRequests,
    maxLogLen: flags.maxLogLen,
    disableLogStats: flags.disableLogStats,
    disableDocs: flags.disableDocs,
    enablePromptTokensDetails: flags.enablePromptTokensDetails,
    enableForceIncludeUsage: flags.enableForceIncludeUsage,
    returnTokensAsTokenIds: flags.returnTokensAsTokenIds,
    responseRole: flags.responseRole,
    devMode: flags.devMode,
    legacyMetrics: flags.legacyMetrics,
    customHistogramBuckets:
      flags.customHistogramBuckets === null ? {} : parseCustomBuckets(flags.customHistogramBuckets),
  };
}

const LOOPBACK = new Set(['localhost', '127.0.0.1', '::1', '[::1]']);

/** A warning for a server that anyone on the network could use; null when there is a key or the host is loopback. */
export function openBindingWarning(host: string, apiKeys: readonly string[]): string | null {
  if (apiKeys.length > 0 || LOOPBACK.has(host) || host.startsWith('127.')) return null;
  const lines = [
    'WARNING: THIS SERVER IS OPEN TO THE NETWORK',
    '',
    `It listens on ${host} without an API key: everyone who can reach this`,
    'machine can use the model, read the plan and fill the queue.',
    '',
    'Cure: --api-key SECRET (clients send "Authorization: Bearer SECRET"),',
    'or --host 127.0.0.1 to serve this machine only.',
  ];
  const width = Math.max(...lines.map((line) => line.length));
  const bar = '!'.repeat(width + 6);
  return [bar, ...lines.map((line) => `!! ${line.padEnd(width)} !!`), bar].join('\n');
}
