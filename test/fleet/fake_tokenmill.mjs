/**
 * Stands in for `tokenmill serve`: the same arguments and routes, no model. Faults and speeds come from the environment:
 * FAKE_START_MS, FAKE_TOKEN_MS, FAKE_TOKENS, FAKE_SLOTS (requests at once, the rest waits), FAKE_ERROR_EVERY (n: each n-th request
 * gets 500), FAKE_REFUSE_START (ends with 1 before it listens).
 */
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

const args = process.argv.slice(2);
if (args[0] !== 'serve') throw new Error(`there is no ${args[0]} here`);
const port = Number(args[args.indexOf('--port') + 1]);
const setting = (name, fallback) => Number(process.env[`FAKE_${name}`] ?? fallback);
const slots = setting('SLOTS', 1000);
const waiting = [];
let running = 0;
let requests = 0;
let isDraining = false;

async function enter() {
  if (running >= slots) await new Promise((resolve) => waiting.push(resolve));
  running++;
}

function leave() {
  running--;
  waiting.shift()?.();
  if (isDraining && running === 0) process.exit(0);
}

function chunk(content, finish_reason = null) {
  const choices = [{ index: 0, delta: content === null ? {} : { content }, finish_reason }];
  return `data: ${JSON.stringify({ id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1, model: 'fake', choices })}\n\n`;
}

async function answer(body, response) {
  const tokens = setting('TOKENS', 5);
  const usage = { prompt_tokens: 3, completion_tokens: tokens, total_tokens: 3 + tokens };
  if (body.stream !== true) {
    await sleep(tokens * setting('TOKEN_MS', 10));
    const message = { role: 'assistant', content: 'word '.repeat(tokens) };
    const choices = [{ index: 0, message, finish_reason: 'stop' }];
    response.setHeader('content-type', 'application/json');
    response.end(
      JSON.stringify({ id: 'chatcmpl-1', object: 'chat.completion', created: 1, model: 'fake', choices, usage }),
    );
    return;
  }
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  for (let i = 0; i < tokens; i++) {
    await sleep(setting('TOKEN_MS', 10));
    response.write(chunk('word '));
  }
  response.write(chunk(null, 'stop'));
  if (body.stream_options?.include_usage) {
    response.write(
      `data: ${JSON.stringify({ id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1, model: 'fake', choices: [], usage })}\n\n`,
    );
  }
  response.end('data: [DONE]\n\n');
}

async function generate(request, response) {
  let text = '';
  for await (const piece of request) text += piece;
  requests++;
  const every = setting('ERROR_EVERY', 0);
  if (every > 0 && requests % every === 0) {
    response.writeHead(500, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ error: { message: 'broken', type: 'InternalServerError', param: null, code: 500 } }));
    return;
  }
  await enter();
  try {
    await answer(JSON.parse(text), response);
  } finally {
    leave();
  }
}

const metrics = () =>
  [
    `vllm:num_requests_running{model_name="fake",engine="0"} ${running}`,
    `vllm:num_requests_waiting{model_name="fake",engine="0"} ${waiting.length}`,
    'vllm:kv_cache_usage_perc{model_name="fake",engine="0"} 0.25',
    '',
  ].join('\n');

const server = createServer((request, response) => {
  const path = request.url.split('?')[0];
  if (request.method === 'POST' && /^\/v1\/(chat\/)?completions$/.test(path)) {
    if (!isDraining) return void generate(request, response);
    response.writeHead(503, { 'retry-after': '1', connection: 'close' });
    return void response.end(
      '{"error":{"message":"draining","type":"ServiceUnavailableError","param":null,"code":503}}',
    );
  }
  if (path === '/metrics') return void response.end(metrics());
  if (path === '/v1/models') return void response.end('{"object":"list","data":[{"id":"fake","object":"model"}]}');
  const isProbe = ['/health', '/livez', '/ready', '/readyz', '/ping'].includes(path);
  const isDown = path.startsWith('/ready') && isDraining;
  response.writeHead(isProbe && !isDown ? 200 : isProbe ? 503 : 404);
  response.end();
});

process.on('SIGTERM', () => {
  isDraining = true;
  if (running === 0) process.exit(0);
});
if (setting('REFUSE_START', 0) > 0) {
  console.error('there is no such model');
  process.exit(1);
}
await sleep(setting('START_MS', 50));
server.listen(port, '127.0.0.1', () => console.log(`listening on ${port}`));
