/** Replicas that do what a test says, a gateway in this process, and a client on a bare connection. */
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pino } from 'pino';
import type { GatewaySpec, GraphSpec, RouteSpec, TrafficSpec } from '../../spec/fleet_spec.ts';
import { Gateway, type GatewayOptions } from '../gateway.ts';
import type { Endpoint, RoutingTable, ServiceRoute } from '../routing_table.ts';

export const TRAFFIC: TrafficSpec = {
  pins: [],
  stickyBy: null,
  shadow: null,
  queue: { maxRequests: 1000, maxBytes: 2 ** 26, ttlMs: 10_000, coldTtlMs: 20_000 },
  fallbacks: [],
  priority: 0,
  hedgeAfterMs: 0,
  idleTimeoutMs: 10_000,
};

export const GATEWAY: GatewaySpec = {
  host: '127.0.0.1',
  port: 0,
  externals: [],
  scorers: {},
  objectives: {},
  requireKey: false,
};

let versions = 0;

export interface TableParts {
  readonly services?: readonly ServiceRoute[];
  readonly routes?: readonly RouteSpec[];
  readonly graphs?: readonly GraphSpec[];
  readonly gateway?: Partial<GatewaySpec>;
}

export function tableOf({ services = [], routes = [], graphs = [], gateway = {} }: TableParts): RoutingTable {
  return { version: ++versions, services, routes, graphs, gateway: { ...GATEWAY, ...gateway } };
}

/** A service `default/NAME` with one revision. */
export function serviceOf(
  name: string,
  urls: readonly string[],
  traffic: Partial<TrafficSpec> = {},
  holds = true,
): ServiceRoute {
  const endpoints: Endpoint[] = urls.map((url) => ({ id: `${name}-${new URL(url).port}`, url, state: 'ready' }));
  return {
    id: `default/${name}`,
    models: [name],
    revisions: [{ id: `${name}-00001`, percent: 100, tags: ['latest'], endpoints }],
    traffic: { ...TRAFFIC, ...traffic },
    holds,
  };
}

export interface Seen {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}

export type Behaviour = (seen: Seen, res: ServerResponse, req: IncomingMessage) => void;

export interface Replica {
  readonly url: string;
  readonly port: number;
  readonly seen: Seen[];
  behave: Behaviour;
  metrics: string;
  close(): Promise<void>;
}

/** Answers what it was asked, with its own name. */
export const echo =
  (name: string): Behaviour =>
  (seen, res) => {
    const body = JSON.stringify({ replica: name, path: seen.url, body: seen.body, usage: { prompt_tokens: 3, completion_tokens: 2 } });
    res.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) });
    res.end(body);
  };

export const answer =
  (status: number, value: unknown): Behaviour =>
  (_seen, res) => {
    res.writeHead(status, { 'content-type': 'application/json' });
    res.end(JSON.stringify(value));
  };

export const IDLE_METRICS =
  'vllm:num_requests_running{model_name="m"} 0\nvllm:num_requests_waiting{model_name="m"} 0\nvllm:kv_cache_usage_perc{model_name="m"} 0\n';

export async function startReplica(behave: Behaviour): Promise<Replica> {
  const seen: Seen[] = [];
  const server: Server = createServer((req, res) => {
    const pieces: Buffer[] = [];
    req.on('data', (piece: Buffer) => pieces.push(piece));
    req.on('end', () => {
      if (req.url === '/metrics') {
        res.end(replica.metrics);
        return;
      }
      const one = { method: req.method ?? '', url: req.url ?? '', headers: req.headers, body: Buffer.concat(pieces).toString() };
      seen.push(one);
      replica.behave(one, res, req);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()));
  const { port } = server.address() as AddressInfo;
  const replica: Replica = {
    url: `http://127.0.0.1:${port}`,
    port,
    seen,
    behave,
    metrics: IDLE_METRICS,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  return replica;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
  /** The connection broke before the end. */
  readonly broken: boolean;
}

export interface AskOptions {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly body?: unknown;
  readonly raw?: string | Buffer;
  readonly signal?: AbortSignal;
  readonly onData?: (text: string) => void;
}

/** One request on a connection of its own. */
export function ask(port: number, path: string, options: AskOptions = {}): Promise<Answer> {
  const { body, raw, headers = {}, signal, onData } = options;
  const bytes = raw ?? (body === undefined ? undefined : JSON.stringify(body));
  const method = options.method ?? (bytes === undefined ? 'GET' : 'POST');
  const type = bytes === undefined ? {} : { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(bytes)) };
  return new Promise((resolve, reject) => {
    const req = request({ port, path, method, agent: false, headers: { ...type, ...headers }, ...(signal ? { signal } : {}) }, (res) => {
      const pieces: Buffer[] = [];
      res.on('data', (piece: Buffer) => {
        pieces.push(piece);
        onData?.(piece.toString());
      });
      const done = (broken: boolean): void =>
        resolve({ status: res.statusCode ?? 0, headers: res.headers, body: Buffer.concat(pieces).toString(), broken });
      res.on('end', () => done(false));
      res.on('error', () => done(true));
    });
    req.on('error', reject);
    req.end(bytes);
  });
}

export function chat(model: string, more: object = {}): object {
  return { model, messages: [{ role: 'user', content: 'hello' }], ...more };
}

export interface TestGateway {
  readonly gateway: Gateway;
  readonly port: number;
}

export async function startGateway(table: RoutingTable | null, options: Partial<GatewayOptions> = {}): Promise<TestGateway> {
  const gateway = new Gateway({ log: pino({ level: 'silent' }), seed: 7n, ...options });
  if (table !== null) gateway.applyTable(table);
  const port = await gateway.listen('127.0.0.1', 0);
  return { gateway, port };
}

/** Waits for what another connection or process brings about. */
export async function until(holds: () => boolean, what: string): Promise<void> {
  const endAt = Date.now() + 15_000;
  while (!holds()) {
    if (Date.now() > endAt) throw new Error(`never came true: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Events of a stream, `[DONE]` included. */
export function eventsOf(body: string): string[] {
  return body
    .split('\n\n')
    .map((event) => event.replace(/^\n*data: ?/, '').trim())
    .filter((event) => event !== '' && !event.startsWith(':'));
}

/** An event stream of `tokens` words, one each `gapMs`; `breakAfter` of them the connection is cut. */
export function stream(tokens: number, gapMs: number, options: { breakAfter?: number; usage?: boolean } = {}): Behaviour {
  return (_seen, res) => {
    res.writeHead(200, { 'content-type': 'text/event-stream' });
    let sent = 0;
    const next = (): void => {
      if (res.destroyed) return;
      if (sent === options.breakAfter) {
        res.destroy();
        return;
      }
      if (sent === tokens) {
        if (options.usage) res.write('data: {"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":22}}\n\n');
        res.end('data: [DONE]\n\n');
        return;
      }
      sent++;
      res.write(`data: {"token":${sent}}\n\n`);
      setTimeout(next, gapMs);
    };
    next();
  };
}
