/** `--root-path`: the prefix under which a proxy in front publishes the server. */
import type { IncomingMessage } from 'node:http';

/** `api/` -> `/api`, `/` -> nothing. */
export function normalRootPath(path: string): string {
  const inner = path.replace(/^\/+|\/+$/g, '');
  return inner === '' ? '' : `/${inner}`;
}

/** Routes match with and without the prefix, because some proxies take it off and some do not; as FastAPI does. */
export function withoutRootPath(rootPath: string): (raw: Pick<IncomingMessage, 'url'>) => string {
  return ({ url = '/' }) => {
    if (rootPath === '' || !url.startsWith(rootPath)) return url;
    const rest = url.slice(rootPath.length);
    if (rest === '' || rest.startsWith('?')) return `/${rest}`;
    return rest.startsWith('/') ? rest : url;
  };
}
