/** Reads and parses JSON bodies with a limit for each and one for all together; the sizes are checked before the bytes are kept. */
import type { Readable } from 'node:stream';
import { TokenmillError } from '../base/errors.ts';
import { checkJsonBounds } from './json_bounds.ts';
import { jsonError, notUtf8Error } from './validation.ts';

/** Any letter of the key may be written as an escape. */
const MAY_HOLD_PROTO = /__proto__|\\u00[567]/i;
const utf8 = new TextDecoder('utf-8', { fatal: true });

function tooLarge(limit: number): TokenmillError {
  return new TokenmillError('body_too_large', `The request body is larger than ${limit} bytes.`, {
    remedy: 'Send less, or raise --max-body-bytes.',
  });
}

/** `__proto__` in a body must not reach objects that are merged later. A reviver would do, but costs seconds for long lists. */
function dropPrototypeKeys(value: unknown): void {
  if (typeof value !== 'object' || value === null) return;
  if (Object.hasOwn(value, '__proto__')) Reflect.deleteProperty(value, '__proto__');
  for (const child of Array.isArray(value) ? value : Object.values(value)) dropPrototypeKeys(child);
}

/** A key `"seed"` with a long value; the quote of a key is never escaped, so nothing inside a string matches. */
const LONG_SEED = /(?<!\\)("seed"\s*:\s*)(-?\d{16,20})(?![\d.eE])/g;

/** JSON.parse rounds integers beyond 2^53, and a rounded seed is another seed: it is read again as a bigint. */
function keepSeedExact(text: string, body: unknown): void {
  const root = body as { seed?: unknown } | null;
  if (typeof root !== 'object' || root === null || typeof root.seed !== 'number') return;
  if (!Number.isInteger(root.seed) || Number.isSafeInteger(root.seed)) return;
  const { seed } = JSON.parse(text.replace(LONG_SEED, '$1"$2"')) as { seed: unknown };
  if (typeof seed === 'string') root.seed = BigInt(seed);
}

/** Bytes -> value. Throws `schema_violation` for what is not UTF-8, not JSON or too much of it; `undefined` for an empty body. */
export function parseJsonBody(bytes: Uint8Array): unknown {
  if (bytes.length === 0) return undefined;
  checkJsonBounds(bytes);
  let text: string;
  try {
    text = utf8.decode(bytes);
  } catch {
    throw notUtf8Error();
  }
  try {
    const body: unknown = JSON.parse(text);
    if (MAY_HOLD_PROTO.test(text)) dropPrototypeKeys(body);
    keepSeedExact(text, body);
    return body;
  } catch (error) {
    throw jsonError(error as Error);
  }
}

export class BodyReader {
  private readonly limit: number;
  private readonly limitTotal: number;
  private held = 0;

  constructor(limit: number, limitTotal: number) {
    this.limit = limit;
    this.limitTotal = limitTotal;
  }

  /** Throws `body_too_large` or `overloaded`; the rest of a refused body is drained unkept, so that the answer reaches the client. */
  read(payload: Readable, contentLength: number): Promise<Uint8Array> {
    if (contentLength > this.limit) return Promise.reject(tooLarge(this.limit));
    return new Promise((resolve, reject) => {
      const chunks: Uint8Array[] = [];
      let size = 0;
      const settle = (act: () => void): void => {
        payload.off('data', onData).off('end', onEnd).off('error', onGone).off('close', onGone);
        this.held -= size;
        payload.resume();
        act();
      };
      const onData = (chunk: Uint8Array): void => {
        size += chunk.length;
        this.held += chunk.length;
        if (size > this.limit) settle(() => reject(tooLarge(this.limit)));
        else if (this.held > this.limitTotal) settle(() => reject(this.tooMany()));
        else chunks.push(chunk);
      };
      const onEnd = (): void => settle(() => resolve(Buffer.concat(chunks, size)));
      const onGone = (): void =>
        settle(() => reject(new TokenmillError('aborted', 'The client left before its request was complete.')));
      payload.on('data', onData).on('end', onEnd).on('error', onGone).on('close', onGone);
    });
  }

  private tooMany(): TokenmillError {
    return new TokenmillError(
      'overloaded',
      `Request bodies of more than ${this.limitTotal} bytes are being read at once.`,
      {
        remedy: 'Retry later.',
        retryAfterS: 1,
      },
    );
  }
}
