/** Bodies of requests: read whole, within a limit for each and one for all together. */
import type { IncomingMessage } from 'node:http';
import { TokenmillError } from '../../base/errors.ts';

export interface BodyLimits {
  readonly maxBodyBytes: number;
  /** Of all requests that are held or under way. */
  readonly maxTotalBytes: number;
}

export class BodyReader {
  private readonly limits: BodyLimits;
  private total = 0;

  constructor(limits: BodyLimits) {
    this.limits = limits;
  }

  get bytes(): number {
    return this.total;
  }

  /** To be called once for each body that was read, when nobody needs it any more. */
  release(body: Buffer | null): void {
    if (body !== null) this.total -= body.length;
  }

  private tooLarge(): TokenmillError {
    return new TokenmillError('body_too_large', `The request body is larger than ${this.limits.maxBodyBytes} bytes.`, {
      remedy: 'Send less.',
    });
  }

  private full(): TokenmillError {
    return new TokenmillError('overloaded', 'The gateway holds as many bytes of requests as it may.', {
      retryAfterS: 1,
    });
  }

  /** One call of `done` or `failed`; none when the client goes before the end. */
  read(req: IncomingMessage, done: (body: Buffer | null) => void, failed: (error: TokenmillError) => void): void {
    const { maxBodyBytes, maxTotalBytes } = this.limits;
    const length = req.headers['content-length'];
    if (length === undefined && req.headers['transfer-encoding'] === undefined) {
      done(null);
      return;
    }
    if (length !== undefined && Number(length) > maxBodyBytes) {
      failed(this.tooLarge());
      return;
    }
    let pieces: Buffer[] | null = [];
    let bytes = 0;
    const stop = (error: TokenmillError | null): void => {
      if (pieces === null) return;
      pieces = null;
      this.total -= bytes;
      if (error !== null) failed(error);
    };
    req.on('data', (piece: Buffer) => {
      if (pieces === null) return;
      bytes += piece.length;
      this.total += piece.length;
      if (bytes > maxBodyBytes) stop(this.tooLarge());
      else if (this.total > maxTotalBytes) stop(this.full());
      else pieces.push(piece);
    });
    req.on('end', () => {
      if (pieces === null) return;
      const body = pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces);
      pieces = null;
      done(body.length === 0 ? null : body);
    });
    req.on('error', () => stop(null));
    req.on('close', () => stop(null));
  }
}
