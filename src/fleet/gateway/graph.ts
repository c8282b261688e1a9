/**
 * InferenceGraph: Sequence, Splitter, Ensemble and Switch over services, nodes and URLs (KServe's router). Answers between steps are
 * kept whole; that of the last step goes to the client as it comes, so that streams stay streams.
 */
import type { TokenmillError } from '../../base/errors.ts';
import type { GraphNode, GraphSpec, GraphStep } from '../spec/fleet_spec.ts';
import type { ClientRequest, ExchangeEnd, ExchangeHost } from './client_request.ts';
import { ExternalTarget } from './endpoint.ts';
import { Exchange } from './exchange.ts';
import { codedError } from './http_errors.ts';
import type { Condition } from './json_path.ts';
import { bodyFacts } from './request_facts.ts';
import type { ResponseHead } from './response_parser.ts';
import { withField } from './scan_body.ts';
import type { ServiceLive } from './service.ts';
import { type AnswerSink, type Collected, CollectSink } from './sink.ts';
import { UrlExchange } from './url_exchange.ts';

export interface GraphHost extends ExchangeHost {
  graph(name: string): GraphSpec | null;
  service(id: string): ServiceLive | null;
  /** Null: of a table that is no longer in use. */
  condition(path: string): Condition | null;
}

export interface GraphOptions {
  readonly extraHeaders: readonly string[];
  readonly onEnd: (end: ExchangeEnd) => void;
}

/** Of an answer between two steps. */
const MAX_ANSWER_BYTES = 16 * 2 ** 20;
/** Nodes may name each other in a circle. */
const MAX_STEPS = 256;

const JSON_HEAD: ResponseHead = {
  status: 200,
  statusText: '',
  headers: ['content-type', 'application/json'],
  contentLength: null,
  eventStream: false,
};

export class GraphRunner {
  private readonly host: GraphHost;
  private readonly targets = new Map<string, ExternalTarget>();

  constructor(host: GraphHost) {
    this.host = host;
  }

  /** Only those that a table names are kept. */
  keepTargets(urls: ReadonlySet<string>): void {
    for (const [url, target] of this.targets) {
      if (urls.has(url)) continue;
      target.pool.drain();
      this.targets.delete(url);
    }
  }

  target(url: string): ExternalTarget {
    const known = this.targets.get(url) ?? new ExternalTarget(url, null);
    this.targets.set(url, known);
    return known;
  }

  sweep(now: number): void {
    for (const { pool } of this.targets.values()) pool.sweep(now);
  }

  run(name: string, request: ClientRequest, sink: AnswerSink, options: GraphOptions): void {
    const graph = this.host.graph(name);
    const run = new GraphRun(this.host, this, graph, request, sink, options);
    run.start();
  }
}

/** An answer in memory, or what goes wrong; `sent` = the client got it as it came. */
type StepResult = Collected | TokenmillError | 'sent';

const isSuccess = ({ status }: Collected): boolean => status >= 200 && status < 300;

class GraphRun {
  private readonly host: GraphHost;
  private readonly runner: GraphRunner;
  private readonly graph: GraphSpec | null;
  private readonly request: ClientRequest;
  private readonly sink: AnswerSink;
  private readonly options: GraphOptions;
  private readonly live = new Set<{ clientLeft(): void }>();
  private steps = 0;
  private gone = false;
  private promptTokens = 0;
  private outputTokens = 0;
  private status = 500;

  constructor(
    host: GraphHost,
    runner: GraphRunner,
    graph: GraphSpec | null,
    request: ClientRequest,
    sink: AnswerSink,
    options: GraphOptions,
  ) {
    this.host = host;
    this.runner = runner;
    this.graph = graph;
    this.request = request;
    this.sink = sink;
    this.options = options;
  }

  start(): void {
    this.watchClient();
    const body = this.request.body ?? Buffer.from('{}');
    this.node('root', body, true)
      .then((result) => {
        if (this.gone || result === 'sent') return;
        const extra = ['x-request-id', this.request.id, ...this.options.extraHeaders];
        if (result instanceof Error) {
          this.status = result.status;
          this.sink.fail(result, null, extra);
        } else {
          this.status = result.status;
          this.sink.whole({ ...result.head, contentLength: result.body.length }, extra, [result.body]);
        }
      })
      .finally(() => this.finish());
  }

  private finish(): void {
    const { promptTokens, outputTokens } = this;
    this.options.onEnd({ status: this.gone ? 499 : this.status, promptTokens, outputTokens, revision: null });
  }

  private watchClient(): void {
    this.sink.onGone = () => {
      this.gone = true;
      for (const exchange of [...this.live]) exchange.clientLeft();
    };
  }

  /** `tail`: nothing follows, so the answer may go straight to the client. */
  private async node(name: string, body: Buffer, tail: boolean): Promise<StepResult> {
    const nodes = this.graph?.nodes ?? {};
    const node = Object.hasOwn(nodes, name) ? (nodes[name] as GraphNode) : undefined;
    if (node === undefined) return codedError('route_broken', `The graph ${this.graph?.id ?? ''} has no node ${name}.`);
    switch (node.router) {
      case 'Sequence':
        return this.sequence(node.steps, body, tail);
      case 'Splitter':
        return this.splitter(node.steps, body, tail);
      case 'Switch':
        return this.switchOver(node.steps, body, tail);
      case 'Ensemble':
        return this.ensemble(node.steps, body);
    }
  }

  private async sequence(steps: readonly GraphStep[], body: Buffer, tail: boolean): Promise<StepResult> {
    let before: Collected | null = null;
    for (const [i, step] of steps.entries()) {
      if (step.condition !== null && before !== null && !this.holds(step.condition, before.body)) return before;
      const input: Buffer = step.data === '$response' && before !== null ? before.body : body;
      const last = i === steps.length - 1;
      const result = await this.step(step, input, tail && last);
      if (result === 'sent' || result instanceof Error) return result;
      if (step.dependency === 'Hard' && !isSuccess(result)) return result;
      before = result;
    }
    return before ?? codedError('route_broken', `A node of the graph ${this.graph?.id} has no step.`);
  }

  /** Draws 0..99, as KServe does. */
  private async splitter(steps: readonly GraphStep[], body: Buffer, tail: boolean): Promise<StepResult> {
    let rest = Math.floor(this.host.draw() * 100);
    for (const step of steps) {
      rest -= step.weight ?? 0;
      if (rest < 0) return this.step(step, body, tail);
    }
    return codedError('route_broken', `The weights of a splitter of the graph ${this.graph?.id} are below 100.`);
  }

  private async switchOver(steps: readonly GraphStep[], body: Buffer, tail: boolean): Promise<StepResult> {
    const step = steps.find(({ condition }) => condition === null || this.holds(condition, body));
    if (step !== undefined) return this.step(step, body, tail);
    const json = Buffer.from(
      JSON.stringify({ error: 'Failed to route to any service.', cause: 'None of the routes matched.' }),
    );
    return { status: 404, head: { ...JSON_HEAD, status: 404 }, body: json };
  }

  private async ensemble(steps: readonly GraphStep[], body: Buffer): Promise<StepResult> {
    const results = await Promise.all(steps.map((step) => this.step(step, body, false)));
    const parts: string[] = [];
    for (const [i, step] of steps.entries()) {
      const result = results[i] as StepResult;
      if (result === 'sent') continue;
      if (result instanceof Error) {
        if (step.dependency === 'Hard') return result;
        continue;
      }
      if (step.dependency === 'Hard' && !isSuccess(result)) return result;
      parts.push(`${JSON.stringify(step.name === '' ? String(i) : step.name)}:${asJson(result.body)}`);
    }
    return { status: 200, head: JSON_HEAD, body: Buffer.from(`{${parts.join(',')}}`) };
  }

  private holds(condition: string, body: Buffer): boolean {
    const test = this.host.condition(condition);
    try {
      return test?.(JSON.parse(body.toString('utf8'))) ?? false;
    } catch {
      // What is no JSON has no path that leads anywhere.
      return false;
    }
  }

  private async step(step: GraphStep, input: Buffer, tail: boolean): Promise<StepResult> {
    if (this.gone) return codedError('aborted', 'The client left.');
    if (++this.steps > MAX_STEPS)
      return codedError(
        'route_broken',
        `The graph ${this.graph?.id} takes more than ${MAX_STEPS} steps for one request.`,
      );
    const { target } = step;
    if ('node' in target) return this.node(target.node, input, tail);
    const facts = this.request.facts;
    // Between two steps a stream is no use; at the end it is what the client asked for.
    let body = facts.stream ? withStream(input, tail) : input;
    if ('url' in target)
      return this.ask(body, tail, (request, sink, onEnd) => {
        return new UrlExchange(this.host, this.runner.target(target.url), request, sink, onEnd);
      });
    const service = this.host.service(target.service);
    if (service === null)
      return codedError(
        'route_broken',
        `The graph ${this.graph?.id} names the service ${target.service}, which does not exist.`,
      );
    body = withModel(body, service.route.models[0] as string);
    return this.ask(body, tail, (request, sink, onEnd) => {
      return new Exchange(this.host, service, request, sink, { extraHeaders: this.options.extraHeaders, onEnd });
    });
  }

  private ask(
    body: Buffer,
    tail: boolean,
    make: (
      request: ClientRequest,
      sink: AnswerSink,
      onEnd: (end: ExchangeEnd) => void,
    ) => { start(): void; clientLeft(): void },
  ): Promise<StepResult> {
    const request = { ...this.request, body, facts: factsOf(body) };
    return new Promise((resolve) => {
      const tooLarge = (): TokenmillError =>
        codedError('route_broken', `A step answered with more than ${MAX_ANSWER_BYTES} bytes.`);
      const sink = tail ? this.sink : new CollectSink(MAX_ANSWER_BYTES, tooLarge, resolve);
      const exchange = make(request, sink, (end) => {
        this.live.delete(exchange);
        this.promptTokens += end.promptTokens;
        this.outputTokens += end.outputTokens;
        this.status = end.status;
        if (end.status === 499) this.gone = this.gone || tail;
        // After the sink's own result this changes nothing.
        resolve(tail ? 'sent' : codedError('aborted', 'The client left.'));
      });
      this.live.add(exchange);
      exchange.start();
    });
  }
}

function factsOf(body: Buffer): ReturnType<typeof bodyFacts> {
  try {
    return bodyFacts(body, undefined);
  } catch {
    // An answer of a step that is no object may well be what the next one wants.
    return bodyFacts(null, undefined);
  }
}

function withStream(body: Buffer, stream: boolean): Buffer {
  return edited(body, 'stream', stream);
}

function withModel(body: Buffer, model: string): Buffer {
  return edited(body, 'model', model);
}

function edited(body: Buffer, name: string, value: string | boolean): Buffer {
  try {
    return withField(body, name, bodyFacts(body, undefined).fields[name], value);
  } catch {
    return body;
  }
}

function asJson(body: Buffer): string {
  const text = body.toString('utf8');
  try {
    JSON.parse(text);
    return text;
  } catch {
    return JSON.stringify(text);
  }
}
