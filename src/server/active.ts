/** The generation requests in flight: each ends by its socket closing, by the drain's deadline or by itself. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { TokenmillError } from '../base/errors.ts';

export class ActiveRequest {
  readonly arrivalMs: number;
  private readonly controller = new AbortController();
  private readonly onEnd: (request: ActiveRequest) => void;
  private readonly detach: () => void;

  constructor(req: IncomingMessage, res: ServerResponse, arrivalMs: number, onEnd: (request: ActiveRequest) => void) {
    this.arrivalMs = arrivalMs;
    this.onEnd = onEnd;
    const gone = (): void => {
      if (!res.writableFinished) this.abort(new TokenmillError('aborted', 'The client closed the connection.'));
    };
    // A pipelined request has an answer without a socket yet, so the socket itself is watched too.
    const socket = req.socket;
    res.once('close', gone);
    socket.once('close', gone);
    this.detach = () => {
      res.off('close', gone);
      socket.off('close', gone);
    };
    if (socket.destroyed) gone();
  }

  get signal(): AbortSignal {
    return this.controller.signal;
  }

  /** The reason's code tells who ended it: `aborted` = the client, `overloaded` = the drain. */
  abort(reason: TokenmillError): void {
    this.controller.abort(reason);
  }

  end(): void {
    this.detach();
    this.onEnd(this);
  }
}

export class ActiveRequests {
  private readonly requests = new Set<ActiveRequest>();
  private idle: (() => void)[] = [];
  private draining = false;
  private readonly retryAfterS: number;

  constructor(retryAfterS: number) {
    this.retryAfterS = retryAfterS;
  }

  get size(): number {
    return this.requests.size;
  }

  get isDraining(): boolean {
    return this.draining;
  }

  /** Throws `overloaded` while draining. */
  open(req: IncomingMessage, res: ServerResponse, arrivalMs: number): ActiveRequest {
    if (this.draining) throw this.shuttingDown();
    const request = new ActiveRequest(req, res, arrivalMs, (ended) => {
      this.requests.delete(ended);
      if (this.requests.size === 0) for (const wake of this.idle.splice(0)) wake();
    });
    this.requests.add(request);
    return request;
  }

  /** From now on `open` refuses; readiness turns false. */
  beginDrain(): void {
    this.draining = true;
  }

  /** Resolves when nothing is in flight. */
  whenIdle(): Promise<void> {
    if (this.requests.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.idle.push(resolve));
  }

  /** Ends everything in flight: streams get an error event, other requests 503. */
  abortAll(): void {
    for (const request of [...this.requests]) request.abort(this.shuttingDown());
  }

  private shuttingDown(): TokenmillError {
    return new TokenmillError('overloaded', 'The server is shutting down.', {
      remedy: 'Retry elsewhere or later.',
      retryAfterS: this.retryAfterS,
    });
  }
}
