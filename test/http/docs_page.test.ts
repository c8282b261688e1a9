/** The page in a real browser, where there is one. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WebSocket } from 'undici';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { docsPage } from '../../src/server/docs_page.ts';
import { type Bench, bench } from './harness.ts';

it('fields that are refused and need no more words share one line; required ones come first', () => {
  const properties = { a: { type: 'string' }, b: { type: 'string' }, c: { type: 'string', description: 'C.' } };
  const schema = { type: 'object', properties, required: ['c'] };
  const post = { tags: ['generate'], requestBody: { content: { 'application/json': { schema } } } };
  const document = { info: { title: 'T', version: '1' }, paths: { '/x': { post } } };
  const page = docsPage(document, { model: "it's", needsKey: false, refusedFields: new Set(['b', 'c']) });
  expect(page).toContain('Refused by name in this version: <code>b</code>.');
  expect(page.match(/<td><code>\w<\/code>/g)).toEqual(['<td><code>c</code>', '<td><code>a</code>']);
  expect(page).toContain('it&#39;\\&#39;&#39;s');
});

const CHROMIUM = ['chromium', 'google-chrome'].find((name) => spawnSync(name, ['--version']).status === 0);

interface Tab {
  call(method: string, params?: object): Promise<Record<string, unknown>>;
  readonly complaints: string[];
}

async function openTab(debuggerUrl: string): Promise<Tab> {
  const { port } = new URL(debuggerUrl);
  const tabs = (await (await fetch(`http://127.0.0.1:${port}/json`)).json()) as {
    type: string;
    webSocketDebuggerUrl: string;
  }[];
  const socket = new WebSocket(tabs.find((tab) => tab.type === 'page')?.webSocketDebuggerUrl ?? '');
  await new Promise((resolve) => socket.addEventListener('open', resolve));
  const waiting = new Map<number, (result: Record<string, unknown>) => void>();
  const complaints: string[] = [];
  socket.addEventListener('message', ({ data }) => {
    const message = JSON.parse(String(data));
    if (message.method === 'Log.entryAdded') complaints.push(message.params.entry.text);
    waiting.get(message.id)?.(message.result);
  });
  let id = 0;
  const call: Tab['call'] = (method, params = {}) =>
    new Promise((resolve) => {
      waiting.set(++id, resolve);
      socket.send(JSON.stringify({ id, method, params }));
    });
  return { call, complaints };
}

describe.skipIf(CHROMIUM === undefined)('in a browser (needs chromium)', () => {
  let b: Bench;
  let browser: ChildProcess;
  let tab: Tab;
  const profile = mkdtempSync(join(tmpdir(), 'tokenmill-docs-'));

  beforeAll(async () => {
    b = await bench();
    const quiet = ['gpu', 'quic', 'background-networking', 'component-update', 'sync'].map((x) => `--disable-${x}`);
    const own = [`--user-data-dir=${profile}`, '--remote-debugging-port=0', '--no-first-run', 'about:blank'];
    browser = spawn(CHROMIUM ?? '', ['--headless', '--no-sandbox', ...quiet, ...own]);
    const debuggerUrl = await new Promise<string>((resolve) => {
      let text = '';
      browser.stderr?.on('data', (data) => {
        text += data;
        const url = /ws:\/\/\S+/.exec(text)?.[0];
        if (url) resolve(url);
      });
    });
    tab = await openTab(debuggerUrl);
  }, 30_000);

  afterAll(async () => {
    const ended = new Promise((resolve) => browser.once('exit', resolve));
    browser.kill('SIGKILL');
    await ended;
    await b.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 10 });
  });

  const evaluate = async (expression: string): Promise<unknown> => {
    const { result } = await tab.call('Runtime.evaluate', { expression, returnByValue: true });
    return (result as { value: unknown }).value;
  };

  it('nothing is wider than a phone, everything open, and the browser has nothing to complain about', async () => {
    const url = await b.server.listen({ host: '127.0.0.1', port: 0 });
    await tab.call('Log.enable');
    await tab.call('Emulation.setDeviceMetricsOverride', {
      width: 360,
      height: 800,
      deviceScaleFactor: 1,
      mobile: true,
    });
    await tab.call('Page.navigate', { url: `${url}/` });
    await expect.poll(() => evaluate('document.readyState + document.title')).toBe('completeTokenmill API');
    await evaluate('for (const d of document.querySelectorAll("details")) d.open = true');
    expect(await evaluate('document.scrollingElement.scrollWidth')).toBe(360);
    expect(await evaluate('location.pathname')).toBe('/docs');
    expect(tab.complaints).toEqual([]);
  });
});
