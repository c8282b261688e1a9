/**
 * The gateway: one HTTP port, a whole routing table at a time, and every request's way to a replica. It knows nothing of how replicas
 * come and go; it holds what cannot be sent yet and counts what it sees.
 */
import { randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, Server as NetServer } from 'node:net';
import type { Logger } from 'pino';
import { type Clock, systemClock } from '../../base/clock.ts';
import { TokenmillError } from '../../base/errors.ts';
import { mix32 } from '../pick/hash.ts';
import { type PrefixHashes, PromptHasher } from '../pick/prefix_index.ts';
import type { GraphSpec } from '../spec/fleet_spec.ts';
import type { ClientRequest, ExchangeEnd, External } from './client_request.ts';
import type { EndpointLive } from './endpoint.ts';
import type { Exchange } from './exchange.ts';
import { Front, type FrontHost } from './front.ts';
import { type GraphHost, GraphRunner } from './graph.ts';
import { BodyReader } from './ingress.ts';
import type { Condition } from './json_path.ts';
import { KeyApi } from './keys/key_api.ts';
import type { Keys } from './keys/keys.ts';
import { LocalRoutes } from './local_routes.ts';
import { mergeStats, settledStats } from './merge_stats.ts';
import type { ServiceCounters } from './metrics.ts';
import type { LocalRoute } from './paths.ts';
import type { GatewayStats, RoutingTable } from './routing_table.ts';
import { PREFIX_BLOCK_TOKENS, ServiceLive } from './service.ts';
import { Shadows } from './shadows.ts';
import { indexTable, type TableIndex } from './table_index.ts';

export interface GatewayOptions {
  readonly log: Logger;
  readonly keys?: Keys | null;
  readonly clock?: Clock;
  /** For draws and ties; default: the operating system's. */
  readonly seed?: bigint;
  /** Where the keys of external servers are looked up. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly maxBodyBytes?: number;
  readonly maxTotalBodyBytes?: number;
  readonly maxConnections?: number;
  /** Tries of one request, the first included. */
  readonly maxAttempts?: number;
  /** Comments to streams that wait for their first byte; 0 = none. */
  readonly keepAliveMs?: number;
  readonly sampleIntervalMs?: number;
}

const DEFAULTS = {
  maxBodyBytes: 64 * 2 ** 20,
  maxTotalBodyBytes: 2 ** 30,
  maxConnections: 65_536,
  maxAttempts: 3,
  keepAliveMs: 0,
  sampleIntervalMs: 1000,
};

const TICK_MS = 100;
const MAX_RETIRED = 256;
const IDLE_CONNECTION_MS = 30_000;
const HEAD_TIMEOUT_MS = 60_000;

export class Gateway implements FrontHost, GraphHost {
  readonly bodies: BodyReader;
  readonly keys: Keys | null;
  readonly graphs: GraphRunner;
  readonly maxAttempts: number;
  readonly keepAliveMs: number;
  index: TableIndex | null = null;
  refusing = false;
  closing = false;
  private readonly log: Logger;
  private readonly clock: Clock;
  private readonly env: Readonly<Record<string, string | undefined>>;
  private readonly drawSeed: number;
  private draws = 0;
  private readonly hasher: PromptHasher;
  private epoch = randomBytes(8).toString('hex');
  private readonly server: Server;
  private readonly options: Required<Omit<GatewayOptions, 'log' | 'keys' | 'clock' | 'seed' | 'env'>>;
  private readonly services = new Map<string, ServiceLive>();
  /** Left the table: their counters go on when they come back. */
  private readonly retired = new Map<string, ServiceLive>();
  private readonly exchanges = new Set<Exchange>();
  private readonly counters = new Map<string, { -readonly [K in keyof ServiceCounters]: number }>();
  private readonly shadows: Shadows;
  private readonly locals: LocalRoutes;
  private readonly timers: NodeJS.Timeout[] = [];
  private readonly pumping = new Set<ServiceLive>();
  private connections = 0;
  private predecessor: GatewayStats | null = null;
  private idle: (() => void) | null = null;

  constructor(options: GatewayOptions) {
    this.options = { ...DEFAULTS, ...options };
    this.log = options.log;
    this.keys = options.keys ?? null;
    this.clock = options.clock ?? systemClock;
    this.env = options.env ?? {};
    const seed = options.seed ?? randomBytes(8).readBigUInt64LE();
    this.drawSeed = Number(BigInt.asUintN(32, seed));
    this.hasher = new PromptHasher(seed, PREFIX_BLOCK_TOKENS);
    this.maxAttempts = this.options.maxAttempts;
    this.keepAliveMs = this.options.keepAliveMs;
    this.bodies = new BodyReader({
      maxBodyBytes: this.options.maxBodyBytes,
      maxTotalBytes: this.options.maxTotalBodyBytes,
    });
    this.graphs = new GraphRunner(this);
    this.shadows = new Shadows(this);
    this.locals = new LocalRoutes(this.keys === null ? null : new KeyApi(this.keys));
    const front = new Front(this);
    this.server = createServer({
      noDelay: true,
      keepAliveTimeout: IDLE_CONNECTION_MS,
      headersTimeout: HEAD_TIMEOUT_MS,
    });
    this.server.maxConnections = this.options.maxConnections;
    this.server.on('request', (req, res) => front.handle(req, res));
    this.server.on('connection', (socket) => {
      this.connections++;
      socket.on('close', () => {
        this.connections--;
        this.checkIdle();
      });
    });
    this.every(TICK_MS, () => this.tick());
    this.every(this.options.sampleIntervalMs, () => this.sample());
  }

  private every(ms: number, call: () => void): void {
    const timer = setInterval(call, ms);
    timer.unref();
    this.timers.push(timer);
  }

  now(): number {
    return this.clock.now();
  }

  draw(): number {
    return (mix32(this.drawSeed + this.draws++) >>> 0) * 2 ** -32;
  }

  /** Takes a whole table. @throws TokenmillError invalid_manifest: a table that cannot be served, or an older one. */
  applyTable(table: RoutingTable): void {
    const before = this.index;
    if (before !== null && table.version < before.table.version) {
      throw new TokenmillError(
        'invalid_manifest',
        `Table ${table.version} is older than ${before.table.version}, which is in use.`,
      );
    }
    const index = indexTable(table, this.env, before?.externals ?? new Map());
    const now = this.now();
    this.index = index;
    for (const name of index.missingKeys) {
      this.log.warn({ variable: name }, 'an external server is left out: the variable with its key is not set');
    }
    for (const [id, route] of index.services) {
      const known = this.services.get(id) ?? this.retired.get(id);
      this.retired.delete(id);
      this.services.set(id, known ?? new ServiceLive(route, index.weights, now));
      known?.apply(route, index.weights, now);
    }
    for (const [id, service] of this.services) if (!index.services.has(id)) this.retire(id, service, now);
    this.graphs.keepTargets(urlsOf(table.graphs));
    this.sample();
    for (const service of this.services.values()) this.pump(service);
  }

  private retire(id: string, service: ServiceLive, now: number): void {
    this.services.delete(id);
    for (const dropped of service.retire(now)) (dropped.held.value as Exchange).dropped(dropped);
    this.retired.set(id, service);
    if (this.retired.size <= MAX_RETIRED) return;
    const [oldest] = this.retired.keys();
    this.retired.delete(oldest as string);
    this.counters.delete(oldest as string);
  }

  stats(): GatewayStats {
    const now = this.now();
    const services = Object.fromEntries([...this.services].map(([id, service]) => [id, service.stats(now)]));
    const own = { epoch: this.epoch, tableVersion: this.index?.table.version ?? -1, at: now, services };
    return this.predecessor === null ? own : mergeStats(own, this.predecessor);
  }

  /** Of the gateway that this one took over from: the counters go on where its were. */
  setPredecessor(stats: GatewayStats): void {
    this.predecessor = stats;
    this.epoch = stats.epoch;
  }

  /** It is gone, and with it what it had under way. */
  predecessorGone(): void {
    if (this.predecessor !== null) this.predecessor = settledStats(this.predecessor);
  }

  // What exchanges ask for.

  serviceOf(model: string): ServiceLive | null {
    const id = this.index?.models.get(model);
    return id === undefined ? null : (this.services.get(id) ?? null);
  }

  externalOf(name: string): External | null {
    return this.index?.externals.get(name) ?? null;
  }

  service(id: string): ServiceLive | null {
    return this.services.get(id) ?? null;
  }

  graph(name: string): GraphSpec | null {
    return this.index?.graphs.get(name) ?? null;
  }

  condition(path: string): Condition | null {
    return this.index?.conditions.get(path) ?? null;
  }

  prefixOf(service: ServiceLive, prompt: Buffer): PrefixHashes | null {
    return (this.index?.weights.prefix ?? 0) === 0 ? null : this.hasher.hash(service.id, prompt);
  }

  pump(service: ServiceLive): void {
    if (service.queue.size === 0 || this.pumping.has(service)) return;
    this.pumping.add(service);
    const now = this.now();
    while (service.queue.size > 0 && service.hasRoom(now)) service.queue.take()?.value.released(now);
    this.pumping.delete(service);
  }

  opened(exchange: Exchange): void {
    this.exchanges.add(exchange);
  }

  closed(exchange: Exchange, _end: ExchangeEnd): void {
    this.exchanges.delete(exchange);
    this.checkIdle();
  }

  private countersOf(id: string): { -readonly [K in keyof ServiceCounters]: number } {
    let counters = this.counters.get(id);
    if (counters === undefined) {
      counters = { retries: 0, hedges: 0, fallbacks: 0, aborts: 0, shadowsSent: 0, shadowsDropped: 0 };
      this.counters.set(id, counters);
    }
    return counters;
  }

  counted(service: ServiceLive, what: keyof ServiceCounters): void {
    this.countersOf(service.id)[what]++;
  }

  shadow(service: ServiceLive, request: ClientRequest): void {
    this.shadows.shadow(service, request);
  }

  mirror(service: ServiceLive, request: ClientRequest): void {
    this.shadows.mirror(service, request);
  }

  get full(): boolean {
    return this.exchanges.size >= this.options.maxConnections;
  }

  unexpected(error: unknown): void {
    this.log.error({ err: error }, 'a request ended in an error that should not be');
  }

  local(
    route: LocalRoute,
    req: IncomingMessage,
    res: ServerResponse,
    body: Buffer | null,
    visible: () => ReadonlySet<string> | null,
  ): void {
    this.locals.answer(route, req, res, body, {
      index: this.index,
      ready: this.index !== null && !this.refusing && !this.closing,
      closing: this.closing,
      visible,
      metrics: () => ({
        stats: this.stats(),
        connections: this.connections,
        bodyBytes: this.bodies.bytes,
        usageRowsDropped: this.keys?.droppedRows ?? 0,
        counters: this.counters,
      }),
    });
  }

  // Time.

  private tick(): void {
    const now = this.now();
    for (const service of this.services.values()) {
      if (service.queue.size === 0) continue;
      const pool = service.pool(now);
      for (const dropped of [...service.queue.expire(pool, now), ...service.queue.shed(pool)])
        (dropped.held.value as Exchange).dropped(dropped);
      this.pump(service);
    }
    for (const exchange of this.exchanges) exchange.tick(now);
  }

  private sampled(service: ServiceLive, endpoint: EndpointLive): void {
    service.sampled(endpoint);
    this.pump(service);
  }

  private sample(): void {
    const now = this.now();
    const monotonic = performance.now();
    for (const service of this.services.values()) {
      for (const { endpoint } of service.endpoints.values()) {
        endpoint.pool.sweep(monotonic);
        if (endpoint.state === 'ready') endpoint.takeSample(now, () => this.sampled(service, endpoint));
      }
    }
    for (const { target } of this.index?.externals.values() ?? []) target.pool.sweep(monotonic);
    this.graphs.sweep(monotonic);
    this.keys?.flush();
  }

  // The port.

  /** The port. Throws `port_in_use` or `flag_invalid`. */
  listen(host: string, port: number): Promise<number> {
    return new Promise((resolve, reject) => {
      this.server.once('error', (error: NodeJS.ErrnoException) => {
        const inUse = error.code === 'EADDRINUSE';
        const message = inUse
          ? `Port ${port} on ${host} is in use by another process.`
          : `Cannot listen on ${host}:${port}: ${error.message}.`;
        const remedy = inUse ? 'Stop it, or give the gateway another port.' : "Check the gateway's host and port.";
        reject(new TokenmillError(inUse ? 'port_in_use' : 'flag_invalid', message, { remedy, cause: error }));
      });
      this.server.listen({ host, port, backlog: 4096 }, () => resolve((this.server.address() as AddressInfo).port));
    });
  }

  /** Goes on with a socket that another process listens on. */
  adopt(listener: NetServer): void {
    this.server.listen(listener);
  }

  /** To hand on to a successor. */
  get listener(): NetServer {
    return this.server;
  }

  get port(): number {
    return (this.server.address() as AddressInfo | null)?.port ?? 0;
  }

  get connectionCount(): number {
    return this.connections;
  }

  /**
   * Stops listening and ends what is under way; true when all of it ended in time. `serve`: requests on connections that stand are
   * still served, the last on each; `refuse`: they get 503.
   */
  async drain(mode: 'serve' | 'refuse', timeoutMs: number): Promise<boolean> {
    this.closing = true;
    this.refusing = mode === 'refuse';
    // Not the HTTP server's own close, which would cut idle connections while a client writes to one.
    NetServer.prototype.close.call(this.server);
    if (mode === 'refuse') {
      for (const service of this.services.values()) {
        for (const dropped of service.queue.close()) (dropped.held.value as Exchange).dropped(dropped);
      }
    }
    const done = new Promise<boolean>((resolve) => {
      this.idle = () => resolve(true);
      setTimeout(() => resolve(false), timeoutMs).unref();
    });
    this.checkIdle();
    const ended = await done;
    const error = new TokenmillError('overloaded', 'The gateway is shutting down.');
    for (const exchange of [...this.exchanges]) exchange.fail(error, 'rejected-shutting-down');
    return ended;
  }

  private checkIdle(): void {
    if (this.idle === null || this.exchanges.size > 0) return;
    if (this.refusing || this.connections === 0) this.idle();
  }

  /** At once. */
  async close(): Promise<void> {
    for (const timer of this.timers) clearInterval(timer);
    const error = new TokenmillError('overloaded', 'The gateway is shutting down.');
    for (const exchange of [...this.exchanges]) exchange.fail(error, 'rejected-shutting-down');
    if (this.server.listening) await new Promise((resolve) => this.server.close(resolve).closeAllConnections());
    else this.server.closeAllConnections();
    for (const service of this.services.values()) {
      for (const { endpoint } of service.endpoints.values()) endpoint.pool.drain();
    }
    for (const { target } of this.index?.externals.values() ?? []) target.pool.drain();
    this.graphs.keepTargets(new Set());
    this.keys?.close();
  }
}

function urlsOf(graphs: readonly GraphSpec[]): ReadonlySet<string> {
  const urls = new Set<string>();
  for (const { nodes } of graphs) {
    for (const { steps } of Object.values(nodes)) {
      for (const { target } of steps) if ('url' in target) urls.add(target.url);
    }
  }
  return urls;
}
