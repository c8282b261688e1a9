/**
 * Requests to one server over kept connections. A plain client on sockets: with undici's Pool a bare proxy carried half the requests
 * a second (17,700 against 32,700, same machine, the replicas and the client of bench/fleet).
 */
import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { type ResponseHead, ResponseParser } from './response_parser.ts';

export interface UpstreamRequest {
  /** Request line and fields, with the empty line. Latin-1. */
  readonly head: string;
  readonly body: Buffer | null;
  readonly headRequest: boolean;
}

/** Exactly one of onEnd and onError comes last; none of them after `abort`. */
export interface UpstreamHandler {
  onHead(head: ResponseHead): void;
  onBody(pieces: readonly Buffer[], framed: Buffer | null): void;
  onEnd(): void;
  onError(error: Error): void;
}

export interface UpstreamCall {
  /** Closes the connection, which is how the server learns of it. */
  abort(): void;
  pause(): void;
  resume(): void;
}

export interface UpstreamLimits {
  readonly connectTimeoutMs: number;
  /** Below what the servers keep an idle connection for, else requests meet closing ones. */
  readonly idleMs: number;
  readonly maxIdle: number;
}

export const UPSTREAM_LIMITS: UpstreamLimits = { connectTimeoutMs: 2000, idleMs: 4000, maxIdle: 1024 };

class Connection {
  readonly socket: Socket;
  private readonly pool: UpstreamPool;
  private parser: ResponseParser | null = null;
  private call: Call | null = null;
  idleSince = 0;

  constructor(pool: UpstreamPool, socket: Socket) {
    this.pool = pool;
    this.socket = socket;
    socket.on('data', (bytes: Buffer) => this.read(bytes));
    socket.on('end', () => this.ended());
    socket.on('error', (error) => this.fail(error));
    socket.on('close', () => this.fail(new Error('the connection was closed')));
  }

  start(call: Call): void {
    this.call = call;
    this.parser = new ResponseParser(call, call.request.headRequest);
    const { head, body } = call.request;
    if (body === null) {
      this.socket.write(head, 'latin1');
      return;
    }
    this.socket.cork();
    this.socket.write(head, 'latin1');
    this.socket.write(body);
    this.socket.uncork();
  }

  private read(bytes: Buffer): void {
    const { parser, call } = this;
    if (parser === null || call === null) {
      this.close();
      return;
    }
    call.answered = true;
    try {
      parser.feed(bytes);
    } catch (error) {
      this.fail(error as Error);
      return;
    }
    if (parser.done && this.call === call) this.release(parser.reusable);
  }

  private release(reusable: boolean): void {
    this.call = null;
    this.parser = null;
    if (reusable && !this.socket.destroyed && !this.socket.readableEnded && this.socket.writableLength === 0) {
      this.socket.resume();
      this.pool.keep(this);
    } else this.close();
  }

  private ended(): void {
    const { parser, call } = this;
    if (parser !== null && call !== null) {
      try {
        parser.finish();
        this.call = null;
      } catch (error) {
        this.fail(error as Error);
        return;
      }
    }
    this.close();
  }

  private fail(error: Error): void {
    const { call } = this;
    this.call = null;
    this.close();
    call?.failed(error);
  }

  /** Without a word to the call. */
  close(): void {
    this.parser = null;
    this.call = null;
    this.pool.forget(this);
    this.socket.destroy();
  }
}

class Call implements UpstreamCall, UpstreamHandler {
  readonly request: UpstreamRequest;
  private readonly handler: UpstreamHandler;
  private readonly pool: UpstreamPool;
  private connection: Connection | null = null;
  private over = false;
  /** A byte of the answer came. */
  answered = false;
  reused = false;

  constructor(pool: UpstreamPool, request: UpstreamRequest, handler: UpstreamHandler) {
    this.pool = pool;
    this.request = request;
    this.handler = handler;
  }

  attach(connection: Connection, reused: boolean): void {
    this.connection = connection;
    this.reused = reused;
    connection.start(this);
  }

  get aborted(): boolean {
    return this.over;
  }

  onHead(head: ResponseHead): void {
    if (!this.over) this.handler.onHead(head);
  }

  onBody(pieces: readonly Buffer[], framed: Buffer | null): void {
    if (!this.over) this.handler.onBody(pieces, framed);
  }

  onEnd(): void {
    if (this.over) return;
    this.over = true;
    this.handler.onEnd();
  }

  onError(error: Error): void {
    this.failed(error);
  }

  failed(error: Error): void {
    if (this.over) return;
    // The server closed the kept connection before it saw the request, which is nobody's failure.
    if (this.reused && !this.answered) {
      this.pool.open(this);
      return;
    }
    this.over = true;
    this.handler.onError(error);
  }

  abort(): void {
    if (this.over) return;
    this.over = true;
    this.connection?.close();
  }

  pause(): void {
    if (!this.over) this.connection?.socket.pause();
  }

  resume(): void {
    if (!this.over) this.connection?.socket.resume();
  }
}

export class UpstreamPool {
  private readonly limits: UpstreamLimits;
  private readonly secure: boolean;
  private readonly host: string;
  private readonly port: number;
  private readonly idle: Connection[] = [];

  /** `url`: `http://host:port` or `https://host`. */
  constructor(url: URL, limits: UpstreamLimits = UPSTREAM_LIMITS) {
    this.limits = limits;
    this.secure = url.protocol === 'https:';
    this.host = url.hostname.replace(/^\[|\]$/g, '');
    this.port = url.port === '' ? (this.secure ? 443 : 80) : Number(url.port);
  }

  request(request: UpstreamRequest, handler: UpstreamHandler): UpstreamCall {
    const call = new Call(this, request, handler);
    for (let kept = this.idle.pop(); kept !== undefined; kept = this.idle.pop()) {
      if (kept.socket.destroyed || kept.socket.readableEnded) continue;
      call.attach(kept, true);
      return call;
    }
    this.open(call);
    return call;
  }

  /** A new connection for the call. */
  open(call: Call): void {
    const { host, port } = this;
    // An IP address is no valid server name.
    const socket = this.secure
      ? connectTls({ host, port, ALPNProtocols: ['http/1.1'], ...(isIP(host) === 0 ? { servername: host } : {}) })
      : connectTcp({ host, port, noDelay: true });
    if (this.secure) socket.setNoDelay(true);
    const connection = new Connection(this, socket);
    const timer = setTimeout(() => {
      socket.destroy(new Error(`no connection within ${this.limits.connectTimeoutMs} ms`));
    }, this.limits.connectTimeoutMs);
    const done = (): void => clearTimeout(timer);
    socket.once(this.secure ? 'secureConnect' : 'connect', done).once('close', done);
    // Writes before the connection stands are kept by the socket.
    call.attach(connection, false);
  }

  keep(connection: Connection): void {
    if (this.idle.length >= this.limits.maxIdle) {
      connection.close();
      return;
    }
    connection.idleSince = performance.now();
    this.idle.push(connection);
  }

  forget(connection: Connection): void {
    const at = this.idle.lastIndexOf(connection);
    if (at >= 0) this.idle.splice(at, 1);
  }

  /** Closes connections that were idle for too long; called now and then. */
  sweep(nowMs: number): void {
    let expired = 0;
    while (expired < this.idle.length && nowMs - (this.idle[expired] as Connection).idleSince > this.limits.idleMs)
      expired++;
    for (const connection of this.idle.splice(0, expired)) connection.close();
  }

  /** Closes the idle ones; those in use end with their answers. */
  drain(): void {
    for (const connection of this.idle.splice(0)) connection.close();
  }
}
