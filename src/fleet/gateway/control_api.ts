/** The control socket: a Unix socket that only the owner can open. PUT /table, GET /stats, POST /drain, POST /handover. */
import { chmodSync, lstatSync, renameSync, unlinkSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { TokenmillError } from '../../base/errors.ts';
import { asTokenmillError, httpError } from './http_errors.ts';
import { BodyReader } from './ingress.ts';
import type { GatewayStats, RoutingTable } from './routing_table.ts';
import { MAX_TABLE_BYTES, parseTable } from './table_schema.ts';

export interface ControlActions {
  stats(): GatewayStats;
  /** @throws TokenmillError invalid_manifest */
  applyTable(table: RoutingTable): void;
  /** Returns at once; the process ends when the draining is over. */
  drain(timeoutMs: number | null): void;
  /** Resolves once the successor has taken over, to its pid. */
  handover(script: string | null): Promise<number>;
}

/** The least `sun_path` of the supported systems, without its NUL. */
const MAX_UDS_BYTES = 103;

function cannotListen(path: string, why: string, remedy: string): TokenmillError {
  return new TokenmillError('flag_invalid', `Cannot listen on ${path}: ${why}.`, { param: '--control', remedy });
}

function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

function fieldOf(body: Buffer | null, name: string): unknown {
  if (body === null) return undefined;
  try {
    const value: unknown = JSON.parse(body.toString('utf8'));
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined;
  } catch (error) {
    throw new TokenmillError('invalid_request', `The body is not valid JSON: ${(error as Error).message}.`);
  }
}

export class ControlApi {
  private readonly actions: ControlActions;
  private readonly server: Server;
  private readonly bodies = new BodyReader({ maxBodyBytes: MAX_TABLE_BYTES, maxTotalBytes: 4 * MAX_TABLE_BYTES });

  constructor(actions: ControlActions) {
    this.actions = actions;
    this.server = createServer((req, res) => this.handle(req, res));
  }

  /** `takeOver`: another process answers there and knows that this one comes. Throws `port_in_use` or `flag_invalid`. */
  async listen(path: string, takeOver: boolean): Promise<void> {
    // Closing a Unix socket removes the name it was bound to: bound to one of its own, no gateway removes its successor's.
    const own = `${path}.${process.pid}`;
    if (Buffer.byteLength(own) > MAX_UDS_BYTES) {
      throw cannotListen(
        path,
        `with the process id the path is longer than ${MAX_UDS_BYTES} bytes`,
        'Choose a shorter one.',
      );
    }
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat !== undefined && !stat.isSocket())
      throw cannotListen(path, 'the file exists and is no socket', 'Choose another path or remove it.');
    if (!takeOver && stat !== undefined && (await isAnswered(path))) {
      throw new TokenmillError('port_in_use', `Another gateway listens on ${path}.`, { remedy: 'Stop it first.' });
    }
    if (lstatSync(own, { throwIfNoEntry: false })?.isSocket()) unlinkSync(own);
    const before = process.umask(0o177);
    try {
      await new Promise<void>((resolve, reject) => {
        this.server.once('error', (error) => reject(cannotListen(path, error.message, 'The folder must be writable.')));
        this.server.listen(own, () => resolve());
      });
    } finally {
      process.umask(before);
    }
    chmodSync(own, 0o600);
    renameSync(own, path);
  }

  close(): void {
    this.server.close();
    this.server.closeIdleConnections();
  }

  private handle(req: IncomingMessage, res: ServerResponse): void {
    const fail = (error: unknown): void => {
      const { status, json } = httpError(asTokenmillError(error), 'openai');
      send(res, status, json);
    };
    this.bodies.read(
      req,
      (body) => {
        this.bodies.release(body);
        this.answer(req, body).then((value) => send(res, 200, JSON.stringify(value)), fail);
      },
      fail,
    );
  }

  private async answer(req: IncomingMessage, body: Buffer | null): Promise<unknown> {
    const { actions } = this;
    switch (`${req.method} ${req.url}`) {
      case 'GET /health':
        return { pid: process.pid };
      case 'GET /stats':
        return actions.stats();
      case 'PUT /table': {
        const table = parseTable(body?.toString('utf8') ?? '');
        actions.applyTable(table);
        return { version: table.version };
      }
      case 'POST /drain': {
        const timeoutMs = fieldOf(body, 'timeoutMs');
        if (timeoutMs !== undefined && !(typeof timeoutMs === 'number' && timeoutMs >= 0 && timeoutMs <= 86_400_000))
          throw new TokenmillError('invalid_request', 'timeoutMs is no time of at most a day.', { param: 'timeoutMs' });
        actions.drain(timeoutMs ?? null);
        return { pid: process.pid };
      }
      case 'POST /handover': {
        const script = fieldOf(body, 'script');
        if (script !== undefined && !(typeof script === 'string' && script.startsWith('/')))
          throw new TokenmillError('invalid_request', 'script is no absolute path.', { param: 'script' });
        return { pid: await actions.handover(script ?? null) };
      }
      default:
        throw new TokenmillError('model_not_found', `The control socket has no ${req.method} ${req.url}.`);
    }
  }
}

function send(res: ServerResponse, status: number, json: string): void {
  res.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(json) });
  res.end(json);
}
