/** The supervisor's API, asked from the command line. */
import { deserializeError, ERRORS, type SerializedError, TokenmillError } from '../../base/errors.ts';
import { readApiAddress } from '../../fleet/supervisor/api_address.ts';
import { findMembers } from '../../fleet/supervisor/process_identity.ts';

export class FleetClient {
  private readonly stateDir: string;

  constructor(stateDir: string) {
    this.stateDir = stateDir;
  }

  get<T>(path: string, query: Readonly<Record<string, string | number | null>> = {}): Promise<T> {
    const pairs = Object.entries(query).flatMap(([name, value]) =>
      value === null ? [] : [[name, String(value)] as [string, string]],
    );
    const text = new URLSearchParams(pairs).toString();
    return this.ask<T>('GET', text === '' ? path : `${path}?${text}`);
  }

  post<T>(path: string, body: unknown = {}): Promise<T> {
    return this.ask<T>('POST', path, body);
  }

  /** Body as it comes. */
  async stream(path: string, query: Readonly<Record<string, string>>): Promise<ReadableStream<Uint8Array>> {
    const response = await this.fetch('GET', `${path}?${new URLSearchParams(query)}`);
    if (!response.ok || response.body === null) throw await refused(response);
    return response.body;
  }

  /** Whether a supervisor answers. */
  async isRunning(): Promise<boolean> {
    try {
      await this.get('/v1/status');
      return true;
    } catch (error) {
      if (error instanceof TokenmillError && error.code === 'fleet_not_running') return false;
      throw error;
    }
  }

  private async ask<T>(method: 'GET' | 'POST', path: string, body?: unknown): Promise<T> {
    const response = await this.fetch(method, path, body);
    if (!response.ok) throw await refused(response);
    return (await response.json()) as T;
  }

  private async fetch(method: 'GET' | 'POST', path: string, body?: unknown): Promise<Response> {
    const address = readApiAddress(this.stateDir);
    if (address === null) throw this.notRunning();
    const headers: Record<string, string> = { authorization: `Bearer ${address.token}` };
    if (body !== undefined) headers['content-type'] = 'application/json';
    try {
      return await fetch(`${address.url}${path}`, {
        method,
        headers,
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
    } catch (error) {
      throw this.notRunning(error);
    }
  }

  private notRunning(cause?: unknown): TokenmillError {
    const left = isLinux() ? findMembers(this.stateDir).size : 0;
    const what = left === 0 ? '' : ` Its gateway and replicas (${left} processes) go on without one.`;
    return new TokenmillError('fleet_not_running', `No fleet runs with the state folder ${this.stateDir}.${what}`, {
      remedy:
        left === 0
          ? 'Start one with tokenmill up fleet.yaml, or name its folder with --state-dir.'
          : 'tokenmill up fleet.yaml takes them over.',
      cause,
    });
  }
}

function isLinux(): boolean {
  return process.platform === 'linux';
}

async function refused(response: Response): Promise<TokenmillError> {
  const text = await response.text();
  try {
    const { error } = JSON.parse(text) as { error: SerializedError };
    if (Object.hasOwn(ERRORS, error.code)) return deserializeError(error);
  } catch {
    // Not the supervisor's form: said as it came.
  }
  return new TokenmillError('internal', `The supervisor answered ${response.status}: ${text.slice(0, 300)}`);
}
