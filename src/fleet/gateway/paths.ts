/** What the gateway makes of a path: which API it belongs to, and where the model's name is. */
import type { Dialect } from './http_errors.ts';

export type LocalRoute = 'health' | 'ready' | 'metrics' | 'models' | 'v2' | 'v2Live' | 'v2Ready' | 'keys';

export type PathKind =
  | { readonly kind: 'local'; readonly route: LocalRoute; readonly dialect: Dialect }
  | {
      readonly kind: 'proxy';
      readonly dialect: Dialect;
      /** As the replica gets it: KServe's prefix `/openai` is gone. */
      readonly path: string;
      /** Named by the path; null = by the body. */
      readonly model: string | null;
    }
  | { readonly kind: 'modelInfo'; readonly model: string }
  | { readonly kind: 'graph'; readonly graph: string; readonly path: string };

const LOCAL: ReadonlyMap<string, LocalRoute> = new Map([
  ['/health', 'health'],
  ['/healthz', 'health'],
  ['/livez', 'health'],
  ['/ping', 'health'],
  ['/ready', 'ready'],
  ['/readyz', 'ready'],
  ['/metrics', 'metrics'],
  ['/v1/models', 'models'],
  ['/v2', 'v2'],
  ['/v2/health/live', 'v2Live'],
  ['/v2/health/ready', 'v2Ready'],
]);

const TGI_PATHS: ReadonlySet<string> = new Set([
  '/',
  '/generate',
  '/generate_stream',
  '/info',
  '/chat_tokenize',
  '/vertex',
]);

/** KServe protocols V2 and V1, which name the model in the path. */
const V2_MODEL = /^\/v2\/models\/([^/]{1,512})(?:\/|$)/;
const V1_MODEL = /^\/v1\/models\/([^/:]{1,512}):(?:predict|explain)$/;
const MODEL_INFO = /^\/v1\/models\/(.{1,512})$/;
const GRAPH = /^\/graphs\/([^/]{1,253})\/([^/]{1,253})(\/.*)?$/;
const KEYS = /^\/key\/[a-z]+$/;

/** Where a step of a graph is sent when the graph's own path says nothing. */
const GRAPH_PATH = '/v1/chat/completions';

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** `path` without the query. */
export function classifyPath(method: string, path: string): PathKind {
  const read = method === 'GET' || method === 'HEAD';
  const bare = path.startsWith('/openai/') ? path.slice(7) : path;
  const local = read || bare === '/ping' ? LOCAL.get(bare) : undefined;
  if (local !== undefined) return { kind: 'local', route: local, dialect: local.startsWith('v2') ? 'v2' : 'openai' };
  if (KEYS.test(bare)) return { kind: 'local', route: 'keys', dialect: 'openai' };
  const graph = GRAPH.exec(bare);
  if (graph !== null) {
    return { kind: 'graph', graph: `${decoded(graph[1]!)}/${decoded(graph[2]!)}`, path: graph[3] ?? GRAPH_PATH };
  }
  const v2 = V2_MODEL.exec(bare);
  if (v2 !== null) return { kind: 'proxy', dialect: 'v2', path: bare, model: decoded(v2[1]!) };
  const v1 = V1_MODEL.exec(bare);
  if (v1 !== null) return { kind: 'proxy', dialect: 'v2', path: bare, model: decoded(v1[1]!) };
  const info = read ? MODEL_INFO.exec(bare) : null;
  if (info !== null) return { kind: 'modelInfo', model: decoded(info[1]!) };
  return { kind: 'proxy', dialect: TGI_PATHS.has(bare) ? 'tgi' : 'openai', path: bare, model: null };
}
