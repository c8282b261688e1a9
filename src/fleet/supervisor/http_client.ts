/** Small questions over HTTP to processes of our own: probes, metrics, the gateway's control API. Answers are bounded. */
import { request as httpRequest } from 'node:http';

export interface Question {
  readonly method: 'GET' | 'POST' | 'PUT';
  /** `http://127.0.0.1:4000/health`, or a path when there is a socket. */
  readonly url: string;
  readonly socketPath?: string;
  readonly body?: unknown;
  readonly timeoutMs: number;
  readonly maxBytes: number;
}

export interface Answer {
  readonly status: number;
  readonly text: string;
}

/** Null when there was none in time, or it was larger than asked for. One connection each: nothing stale is reused. */
export function ask({ method, url, socketPath, body, timeoutMs, maxBytes }: Question): Promise<Answer | null> {
  const payload = body === undefined ? null : JSON.stringify(body);
  return new Promise((resolve) => {
    const headers: Record<string, string | number> =
      payload === null ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(payload) };
    const common = { method, headers, agent: false as const, signal: AbortSignal.timeout(Math.max(1, timeoutMs)) };
    const request =
      socketPath === undefined ? httpRequest(url, common) : httpRequest({ ...common, socketPath, path: url });
    request.once('error', () => resolve(null));
    request.once('response', (response) => {
      const chunks: Buffer[] = [];
      let size = 0;
      response.on('data', (chunk: Buffer) => {
        size += chunk.length;
        if (size <= maxBytes) chunks.push(chunk);
        else {
          response.destroy();
          resolve(null);
        }
      });
      response.once('end', () =>
        resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') }),
      );
      response.once('close', () => resolve(null));
      response.once('error', () => resolve(null));
    });
    request.end(payload ?? undefined);
  });
}

const PROBE_BYTES = 1 << 16;

/** As the kubelet judges: any status from 200 to 399. */
export async function httpProbe(url: string, timeoutMs: number): Promise<boolean> {
  const answer = await ask({ method: 'GET', url, timeoutMs, maxBytes: PROBE_BYTES });
  return answer !== null && answer.status >= 200 && answer.status < 400;
}
