/** What the gateway answers itself: probes, metrics, the list of models, and the API of keys. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { version } from '../../base/package_root.ts';
import { modelObject } from './front.ts';
import { asTokenmillError, httpError } from './http_errors.ts';
import type { KeyApi } from './keys/key_api.ts';
import { GatewayMetrics, type MetricSources } from './metrics.ts';
import type { LocalRoute } from './paths.ts';
import type { TableIndex } from './table_index.ts';

export interface LocalState {
  readonly index: TableIndex | null;
  readonly ready: boolean;
  readonly closing: boolean;
  /** @throws TokenmillError unauthorized */
  readonly visible: () => ReadonlySet<string> | null;
  readonly metrics: () => MetricSources;
}

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly text: string;
  readonly headers?: readonly string[];
}

const json = (value: unknown, status = 200): Answer => ({
  status,
  type: 'application/json',
  text: JSON.stringify(value),
});

export class LocalRoutes {
  private readonly keyApi: KeyApi | null;
  private readonly metrics = new GatewayMetrics();

  constructor(keyApi: KeyApi | null) {
    this.keyApi = keyApi;
  }

  /** @throws TokenmillError */
  answer(route: LocalRoute, req: IncomingMessage, res: ServerResponse, body: Buffer | null, state: LocalState): void {
    const send = ({ status, type, text, headers }: Answer): void => {
      const close = state.closing ? ['connection', 'close'] : [];
      const length = String(Buffer.byteLength(text));
      res.writeHead(status, ['content-type', type, 'content-length', length, ...(headers ?? []), ...close]);
      res.end(req.method === 'HEAD' ? undefined : text);
    };
    if (route === 'metrics') {
      this.metrics.text(state.metrics()).then(
        (text) => send({ status: 200, type: this.metrics.contentType, text }),
        (error: unknown) => {
          const { status, json: text } = httpError(asTokenmillError(error), 'openai');
          send({ status, type: 'application/json', text });
        },
      );
      return;
    }
    send(this.plain(route, req, body, state));
  }

  private plain(
    route: Exclude<LocalRoute, 'metrics'>,
    req: IncomingMessage,
    body: Buffer | null,
    state: LocalState,
  ): Answer {
    switch (route) {
      case 'health':
        return { status: 200, type: 'text/plain', text: '' };
      case 'ready':
        return state.ready
          ? { status: 200, type: 'text/plain', text: '' }
          : { status: 503, type: 'text/plain', text: '', headers: ['retry-after', '1'] };
      case 'v2':
        return json({ name: 'tokenmill', version: version(), extensions: [] });
      case 'v2Live':
        return json({ live: true });
      case 'v2Ready':
        return json({ ready: state.ready }, state.ready ? 200 : 503);
      case 'models':
        return json({ object: 'list', data: models(state) });
      case 'keys':
        return this.keys(req, body);
    }
  }

  private keys(req: IncomingMessage, body: Buffer | null): Answer {
    if (this.keyApi === null)
      return json(
        { error: { message: 'The gateway has no store of keys.', type: 'NotFoundError', param: null, code: 404 } },
        404,
      );
    const url = req.url ?? '/';
    const mark = url.indexOf('?');
    const path = mark < 0 ? url : url.slice(0, mark);
    const token = /^bearer +(\S+)$/i.exec(req.headers.authorization ?? '')?.[1] ?? null;
    return json(this.keyApi.handle(req.method ?? 'GET', path, mark < 0 ? '' : url.slice(mark), token, body));
  }
}

function models({ index, visible }: LocalState): object[] {
  const allowed = visible();
  const names = [...(index?.models.keys() ?? [])];
  return names.filter((name) => allowed === null || allowed.has(name)).map(modelObject);
}
