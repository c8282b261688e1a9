/**
 * A replica that computes nothing: answers /health, /metrics and any POST, plainly or as a stream of `max_tokens` events, one each
 * `x-null-gap-ms` (0 = all at once). On bare sockets, so that it costs far less than what is measured through it.
 *
 *   node bench/fleet/null_replica.mjs [port]     prints {"port": N} once it listens
 */
import { createServer } from 'node:net';

const METRICS =
  'vllm:num_requests_running{engine="0",model_name="null"} 0\nvllm:num_requests_waiting{engine="0",model_name="null"} 0\nvllm:kv_cache_usage_perc{engine="0",model_name="null"} 0.25\n';

const ANSWER = JSON.stringify({
  id: 'cmpl-0',
  object: 'chat.completion',
  created: 0,
  model: 'null',
  choices: [{ index: 0, message: { role: 'assistant', content: 'null' }, finish_reason: 'stop' }],
  usage: { prompt_tokens: 7, completion_tokens: 1, total_tokens: 8 },
});
const EVENT = `data: ${JSON.stringify({ id: 'cmpl-0', object: 'chat.completion.chunk', created: 0, model: 'null', choices: [{ index: 0, delta: { content: 'word ' }, finish_reason: null }] })}\n\n`;
const FRAME = `${EVENT.length.toString(16)}\r\n${EVENT}\r\n`;
const DONE = 'data: [DONE]\n\n';
const LAST = `${DONE.length.toString(16)}\r\n${DONE}\r\n0\r\n\r\n`;
const STREAM_HEAD =
  'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n';

const plain = (body, type = 'application/json', status = '200 OK') =>
  `HTTP/1.1 ${status}\r\ncontent-type: ${type}\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
const PLAIN_ANSWER = plain(ANSWER);

/** Streams under way: all are served by one timer, as one engine step serves all sequences. */
const streams = new Set();
let timer = null;
function tick() {
  const now = performance.now();
  for (const stream of streams) {
    if (stream.socket.destroyed) streams.delete(stream);
    else if (now >= stream.nextAt) {
      stream.nextAt += stream.gapMs;
      stream.left--;
      if (stream.left > 0) stream.socket.write(FRAME);
      else {
        stream.socket.write(FRAME + LAST);
        streams.delete(stream);
      }
    }
  }
  if (streams.size === 0) {
    clearInterval(timer);
    timer = null;
  }
}

function answer(socket, head, body) {
  if (!head.startsWith('POST')) {
    socket.write(head.startsWith('GET /metrics') ? plain(METRICS, 'text/plain') : plain(''));
    return;
  }
  if (!body.includes('"stream":true')) {
    socket.write(PLAIN_ANSWER);
    return;
  }
  const tokens = Number(/"max_tokens":(\d+)/.exec(body)?.[1] ?? 16);
  const gapMs = Number(/x-null-gap-ms: *(\d+)/i.exec(head)?.[1] ?? 0);
  if (gapMs === 0) {
    socket.write(STREAM_HEAD + FRAME.repeat(tokens) + LAST);
    return;
  }
  socket.write(STREAM_HEAD + FRAME);
  streams.add({ socket, left: tokens - 1, gapMs, nextAt: performance.now() + gapMs });
  timer ??= setInterval(tick, 1);
}

const server = createServer({ noDelay: true }, (socket) => {
  let kept = '';
  socket.on('error', () => {});
  socket.on('data', (bytes) => {
    kept += bytes.latin1Slice();
    for (;;) {
      const end = kept.indexOf('\r\n\r\n');
      if (end < 0) return;
      const length = Number(/content-length: *(\d+)/i.exec(kept.slice(0, end))?.[1] ?? 0);
      if (kept.length < end + 4 + length) return;
      answer(socket, kept.slice(0, end), kept.slice(end + 4, end + 4 + length));
      kept = kept.slice(end + 4 + length);
    }
  });
});
server.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => console.log(JSON.stringify(server.address())));
