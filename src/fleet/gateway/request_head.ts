/** Heads of the requests that go to replicas: made from the client's, without what belongs to one connection only. */

export interface HeadRules {
  readonly set: Readonly<Record<string, string>>;
  readonly remove: readonly string[];
}

const NOT_FORWARDED: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'expect',
  'host',
  'content-length',
  'x-request-id',
  'x-forwarded-for',
]);

export interface ForwardedOptions {
  readonly requestId: string;
  readonly clientAddress: string;
  /** The client's key was the gateway's business. */
  readonly dropAuthorization: boolean;
  readonly rules: HeadRules | null;
}

/** The fields after host and content-length, each ending in CRLF. `raw` came through Node's parser: no value holds a line break. */
export function forwardedFields(raw: readonly string[], options: ForwardedOptions): string {
  let text = '';
  let forwardedFor = '';
  const named = new Set(raw.length > 0 ? connectionNames(raw) : []);
  const ruled = options.rules === null ? null : ruledNames(options.rules);
  for (let i = 0; i < raw.length; i += 2) {
    const name = (raw[i] as string).toLowerCase();
    if (name === 'x-forwarded-for') forwardedFor += `${raw[i + 1]}, `;
    if (NOT_FORWARDED.has(name) || named.has(name) || ruled?.has(name)) continue;
    if (options.dropAuthorization && (name === 'authorization' || name === 'api-key' || name === 'x-api-key')) continue;
    text += `${raw[i]}: ${raw[i + 1]}\r\n`;
  }
  text += `x-request-id: ${options.requestId}\r\n`;
  text += `x-forwarded-for: ${forwardedFor}${options.clientAddress}\r\n`;
  for (const [name, value] of Object.entries(options.rules?.set ?? {})) text += `${name}: ${value}\r\n`;
  return text;
}

function ruledNames(rules: HeadRules): ReadonlySet<string> {
  return new Set([...Object.keys(rules.set), ...rules.remove].map((name) => name.toLowerCase()));
}

/** Fields that `Connection` names are of this connection only (RFC 9110, 7.6.1). */
function connectionNames(raw: readonly string[]): readonly string[] {
  for (let i = 0; i < raw.length; i += 2) {
    if ((raw[i] as string).toLowerCase() !== 'connection') continue;
    const value = raw[i + 1] as string;
    if (/^(?:keep-alive|close)$/i.test(value)) return [];
    return value.split(',').map((name) => name.trim().toLowerCase());
  }
  return [];
}

/** A request line with its fields. `path` with the query. */
export function requestHead(method: string, path: string, host: string, fields: string, body: Buffer | null): string {
  const length = body === null ? '' : `content-length: ${body.length}\r\n`;
  return `${method} ${path} HTTP/1.1\r\nhost: ${host}\r\n${length}${fields}\r\n`;
}
