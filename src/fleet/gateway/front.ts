/** From a request's head and body to the service, graph or local answer it is for. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { TokenmillError } from '../../base/errors.ts';
import { chooseBackend, type Routed } from '../pick/route_match.ts';
import type { RouteRule } from '../spec/fleet_spec.ts';
import type { ClientRequest, ExchangeEnd, ExchangeHost } from './client_request.ts';
import { Exchange } from './exchange.ts';
import type { GraphRunner } from './graph.ts';
import { asTokenmillError, codedError, type Dialect, httpError } from './http_errors.ts';
import type { BodyReader } from './ingress.ts';
import type { Admitted, KeyGate } from './keys/key_gate.ts';
import { classifyPath, type LocalRoute } from './paths.ts';
import { type BodyFacts, bodyFacts, headerOf, promptTokensOf, requestId } from './request_facts.ts';
import { forwardedFields } from './request_head.ts';
import { withField } from './scan_body.ts';
import type { ServiceLive } from './service.ts';
import { HttpSink } from './sink.ts';
import type { TableIndex } from './table_index.ts';

export interface FrontHost extends ExchangeHost {
  readonly index: TableIndex | null;
  readonly bodies: BodyReader;
  readonly keys: KeyGate | null;
  readonly graphs: GraphRunner;
  /** New requests are refused; what is under way ends. */
  readonly refusing: boolean;
  /** Connections end with their answers. */
  readonly closing: boolean;
  readonly full: boolean;
  service(id: string): ServiceLive | null;
  local(
    route: LocalRoute,
    req: IncomingMessage,
    res: ServerResponse,
    body: Buffer | null,
    visible: () => ReadonlySet<string> | null,
  ): void;
  shadow(service: ServiceLive, request: ClientRequest): void;
  mirror(service: ServiceLive, request: ClientRequest): void;
  unexpected(error: unknown): void;
}

type Destination =
  | { readonly kind: 'service'; readonly service: ServiceLive; readonly model: string }
  | { readonly kind: 'graph'; readonly name: string };

interface Incoming {
  readonly req: IncomingMessage;
  readonly res: ServerResponse;
  readonly path: string;
  readonly search: string;
  readonly token: string | null;
}

/** Bounds of what a body may ask of a queue's order; vLLM's lower is sooner. */
const MAX_BODY_PRIORITY = 100;
/** When a request does not say how much may be generated. */
const DEFAULT_MAX_TOKENS = 256;
const MAX_NAMES_SHOWN = 32;

function tokenOf(req: IncomingMessage): string | null {
  const { authorization } = req.headers;
  if (authorization !== undefined) return /^bearer +(\S+)$/i.exec(authorization)?.[1] ?? '';
  return headerOf(req, 'api-key') ?? headerOf(req, 'x-api-key') ?? null;
}

export class Front {
  private readonly host: FrontHost;

  constructor(host: FrontHost) {
    this.host = host;
  }

  handle(req: IncomingMessage, res: ServerResponse): void {
    const url = (req.url ?? '/').startsWith('/') ? (req.url as string) : pathOfAbsolute(req.url as string);
    const mark = url.indexOf('?');
    const path = mark < 0 ? url : url.slice(0, mark);
    const incoming = { req, res, path, search: mark < 0 ? '' : url.slice(mark), token: tokenOf(req) };
    const fail = (error: unknown): void => this.fail(incoming, error);
    this.host.bodies.read(
      req,
      (body) => {
        const release = once(() => this.host.bodies.release(body));
        try {
          this.route(incoming, body, release);
        } catch (error) {
          release();
          fail(error);
        }
      },
      fail,
    );
  }

  private fail({ req, res, path }: Incoming, error: unknown): void {
    const coded = asTokenmillError(error);
    if (coded.code === 'internal') this.host.unexpected(error);
    const kind = classifyPath(req.method ?? 'GET', path);
    const { status, json, headers } = httpError(coded, 'dialect' in kind ? kind.dialect : 'openai');
    if (res.headersSent) {
      res.destroy();
      return;
    }
    // What is left of a body that was refused must not be read as the next request.
    const close = this.host.closing || !req.complete ? ['connection', 'close'] : [];
    res.writeHead(status, [
      'content-type',
      'application/json',
      'content-length',
      String(Buffer.byteLength(json)),
      ...headers,
      ...close,
    ]);
    res.end(json);
  }

  private route(incoming: Incoming, body: Buffer | null, release: () => void): void {
    const { req, res, path, token } = incoming;
    const { host } = this;
    const method = req.method ?? 'GET';
    const kind = classifyPath(method, path);
    if (kind.kind === 'local' || kind.kind === 'modelInfo') {
      const required = host.index?.table.gateway.requireKey ?? false;
      const visible = (): ReadonlySet<string> | null => host.keys?.visible(token, required) ?? null;
      if (kind.kind === 'local') host.local(kind.route, req, res, body, visible);
      else this.modelInfo(incoming, kind.model, visible());
      release();
      return;
    }
    const { index } = host;
    if (index === null) throw codedError('overloaded', 'The gateway has no routing table yet.');
    if (host.refusing) throw codedError('overloaded', 'The gateway is shutting down.');
    if (host.full) throw codedError('overloaded', 'The gateway has as many requests under way as it may.');
    const facts = bodyFacts(body, req.headers['content-type']);
    const routed = kind.kind === 'proxy' ? this.routed(incoming, index) : null;
    const target = routed === null ? kind : classifyPath(method, routed.path);
    const destination =
      routed === null
        ? this.destination(
            index,
            kind.kind === 'graph' ? null : (kind.model ?? facts.model),
            kind.kind === 'graph' ? kind.graph : null,
          )
        : this.backend(routed, facts);
    const dialect: Dialect = 'dialect' in target ? target.dialect : 'openai';
    const newPath = routed === null ? ('path' in kind ? kind.path : path) : routed.path;
    this.start(incoming, { body, facts, dialect, path: newPath, destination, rule: routed?.rule ?? null, release });
  }

  private routed({ req, path, search }: Incoming, index: TableIndex): Routed | null {
    if (index.matcher === null) return null;
    const query = search === '' ? null : new URLSearchParams(search);
    return index.matcher.match({
      host: req.headers.host ?? '',
      method: req.method ?? 'GET',
      path,
      header: (name) => headerOf(req, name),
      query: (name) => query?.get(name) ?? null,
    });
  }

  private backend({ rule, route }: Routed, facts: BodyFacts): Destination {
    const id = chooseBackend(rule, this.host.draw());
    const service = id === null ? null : this.host.service(id);
    if (service === null) throw codedError('route_broken', `A rule of the route ${route.id} leads to no service.`);
    return { kind: 'service', service, model: facts.model ?? (service.route.models[0] as string) };
  }

  private destination(index: TableIndex, model: string | null, graph: string | null): Destination {
    if (graph !== null) {
      if (index.graphs.has(graph)) return { kind: 'graph', name: graph };
      throw new TokenmillError('model_not_found', `There is no graph ${graph.slice(0, 200)}.`);
    }
    const only = index.services.size === 1 ? index.table.services[0] : undefined;
    const id = model === null || model === '' ? only?.id : index.models.get(model);
    const service = id === undefined ? null : this.host.service(id);
    if (service !== null) return { kind: 'service', service, model: model ?? (service.route.models[0] as string) };
    if (model !== null && index.graphs.has(model)) return { kind: 'graph', name: model };
    const names = [...index.models.keys()].slice(0, MAX_NAMES_SHOWN).join(', ');
    if (model === null || model === '') {
      throw new TokenmillError('invalid_request', 'The request names no model.', {
        param: 'model',
        remedy: `Give one of: ${names}.`,
      });
    }
    throw new TokenmillError('model_not_found', `The model \`${model.slice(0, 200)}\` does not exist.`, {
      param: 'model',
      remedy: `Served models: ${names}.`,
    });
  }

  private start(
    incoming: Incoming,
    plan: {
      readonly body: Buffer | null;
      readonly facts: BodyFacts;
      readonly dialect: Dialect;
      readonly path: string;
      readonly destination: Destination;
      readonly rule: RouteRule | null;
      readonly release: () => void;
    },
  ): void {
    const { req, res, token, search } = incoming;
    const { host } = this;
    const { facts, destination, dialect, rule, release } = plan;
    if (destination.kind === 'graph' && req.method !== 'POST')
      throw codedError('invalid_request', 'A graph takes POST only.');
    const required = host.index?.table.gateway.requireKey ?? false;
    const model = destination.kind === 'graph' ? destination.name : destination.model;
    const estimate = promptTokensOf(facts) + (facts.maxTokens ?? DEFAULT_MAX_TOKENS);
    if (required && host.keys === null) {
      throw codedError('unauthorized', 'Requests need a key, and the gateway has no store of keys.');
    }
    const admitted = host.keys === null ? null : host.keys.admit(token, model, estimate, required);
    const id = requestId(req.headers['x-request-id']);
    const body = this.bodyFor(plan.body, facts, destination);
    const request: ClientRequest = {
      id,
      method: req.method ?? 'GET',
      path: plan.path + search,
      dialect,
      fields: forwardedFields(req.rawHeaders, {
        requestId: id,
        clientAddress: req.socket.remoteAddress ?? '',
        dropAuthorization: required || (token !== null && (host.keys?.knows(token) ?? false)),
        rules: rule === null ? null : { set: rule.setHeaders, remove: rule.removeHeaders },
      }),
      body,
      facts: body === plan.body ? facts : bodyFacts(body, undefined),
      header: (name) => headerOf(req, name),
      key: this.fairness(req, admitted),
      sessionKey: headerOf(req, 'x-session-id') ?? headerOf(req, 'x-session-token') ?? facts.cacheKey ?? facts.user,
      priority: this.priority(req, facts, destination),
      timeoutMs: rule?.requestTimeoutMs ?? 0,
    };
    const sink = new HttpSink(req, res, { dialect, stream: facts.stream, close: host.closing });
    const extraHeaders = admitted?.headers ?? [];
    const onEnd = (end: ExchangeEnd): void => {
      release();
      admitted?.settle(end);
    };
    if (destination.kind === 'graph') {
      host.graphs.run(destination.name, request, sink, { extraHeaders, onEnd });
      return;
    }
    const { service } = destination;
    new Exchange(host, service, request, sink, { extraHeaders, onEnd }).start();
    if (service.route.traffic.shadow !== null) host.shadow(service, request);
    const mirror = rule?.mirrorTo == null ? null : host.service(rule.mirrorTo);
    if (mirror !== null) host.mirror(mirror, request);
  }

  /** A route may lead to another service than the one whose name the body says; adapters keep theirs. */
  private bodyFor(body: Buffer | null, facts: BodyFacts, destination: Destination): Buffer | null {
    if (body === null || facts.model === null || destination.kind === 'graph') return body;
    const { route } = destination.service;
    const owner = this.host.index?.models.get(facts.model);
    if (owner === undefined || owner === route.id) return body;
    return withField(body, 'model', facts.fields['model'], route.models[0] as string);
  }

  private fairness(req: IncomingMessage, admitted: Admitted | null): string {
    const named = headerOf(req, 'x-llm-d-inference-fairness-id') ?? headerOf(req, 'x-gateway-inference-fairness-id');
    return (named ?? admitted?.key ?? '').slice(0, 256);
  }

  private priority(req: IncomingMessage, facts: BodyFacts, destination: Destination): number {
    const objective = headerOf(req, 'x-llm-d-inference-objective') ?? headerOf(req, 'x-gateway-inference-objective');
    const named = objective === undefined ? undefined : this.host.index?.objectives.get(objective);
    if (named !== undefined) return named;
    const base = destination.kind === 'service' ? destination.service.route.traffic.priority : 0;
    const header = headerOf(req, 'x-vllm-priority');
    const asked = header !== undefined && /^-?\d{1,9}$/.test(header) ? Number(header) : (facts.priority ?? 0);
    return base - Math.trunc(Math.min(MAX_BODY_PRIORITY, Math.max(-MAX_BODY_PRIORITY, asked)));
  }

  private modelInfo({ res }: Incoming, model: string, visible: ReadonlySet<string> | null): void {
    const { index, closing } = this.host;
    if (!index?.models.has(model) || (visible !== null && !visible.has(model))) {
      throw new TokenmillError('model_not_found', `The model \`${model.slice(0, 200)}\` does not exist.`, {
        param: 'model',
      });
    }
    const json = JSON.stringify(modelObject(model));
    const close = closing ? ['connection', 'close'] : [];
    res.writeHead(200, [
      'content-type',
      'application/json',
      'content-length',
      String(Buffer.byteLength(json)),
      ...close,
    ]);
    res.end(json);
  }
}

export function modelObject(id: string): object {
  return { id, object: 'model', created: 0, owned_by: 'tokenmill', root: id, parent: null };
}

function pathOfAbsolute(url: string): string {
  if (!URL.canParse(url)) return '/';
  const { pathname, search } = new URL(url);
  return pathname + search;
}

function once(call: () => void): () => void {
  let called = false;
  return () => {
    if (!called) call();
    called = true;
  };
}
