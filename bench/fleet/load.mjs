/**
 * A client that keeps `connections` busy for `seconds` and prints one line of JSON: requests, events, latencies in ms.
 *
 *   node bench/fleet/load.mjs '{"port": 8080, "connections": 32, "seconds": 5, "stream": false, "tokens": 32, "gapMs": 0, "paceMs": 0}'
 */
import { connect } from 'node:net';

const options = {
  host: '127.0.0.1',
  connections: 32,
  seconds: 5,
  stream: false,
  tokens: 32,
  gapMs: 0,
  paceMs: 0,
  promptBytes: 200,
  model: 'null',
};
Object.assign(options, JSON.parse(process.argv[2] ?? '{}'));

const body = JSON.stringify({
  model: options.model,
  messages: [{ role: 'user', content: 'word '.repeat(options.promptBytes / 5) }],
  max_tokens: options.tokens,
  ...(options.stream ? { stream: true } : {}),
});
const REQUEST = `POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\nauthorization: Bearer sk-null\r\nx-null-gap-ms: ${options.gapMs}\r\ncontent-length: ${body.length}\r\n\r\n${body}`;

const latencies = [];
const firsts = [];
let events = 0;
let errors = 0;
const startedAt = performance.now();
const endAt = startedAt + options.seconds * 1000;

function count(text, needle) {
  let found = 0;
  for (let at = text.indexOf(needle); at >= 0; at = text.indexOf(needle, at + needle.length)) found++;
  return found;
}

function client(done) {
  const socket = connect({ host: options.host, port: options.port, noDelay: true });
  let sentAt = 0;
  let kept = '';
  let first = true;
  const send = () => {
    if (performance.now() >= endAt) {
      socket.end();
      done();
      return;
    }
    sentAt = performance.now();
    first = true;
    socket.write(REQUEST);
  };
  const finished = () => {
    latencies.push(performance.now() - sentAt);
    kept = '';
    if (options.paceMs > 0) setTimeout(send, options.paceMs * 2 * Math.random());
    else send();
  };
  socket.on('connect', send);
  socket.on('error', () => {
    errors++;
    done();
  });
  socket.on('data', (bytes) => {
    const text = bytes.latin1Slice();
    if (first) {
      first = false;
      firsts.push(performance.now() - sentAt);
      if (!text.startsWith('HTTP/1.1 200')) errors++;
    }
    if (options.stream) {
      events += count(text, 'data: {');
      kept = kept.slice(-8) + text;
      if (kept.endsWith('\r\n0\r\n\r\n')) finished();
      return;
    }
    kept += text;
    const head = kept.indexOf('\r\n\r\n');
    if (head >= 0 && kept.length >= head + 4 + Number(/content-length: *(\d+)/i.exec(kept)[1])) finished();
  });
}

const quantile = (values, q) => values[Math.min(values.length - 1, Math.floor(values.length * q))] ?? null;
await Promise.all(Array.from({ length: options.connections }, () => new Promise(client)));
const seconds = (performance.now() - startedAt) / 1000;
latencies.sort((a, b) => a - b);
firsts.sort((a, b) => a - b);
const summary = (values) => ({ p50: quantile(values, 0.5), p95: quantile(values, 0.95), p99: quantile(values, 0.99) });
console.log(
  JSON.stringify({
    requests: latencies.length,
    events,
    errors,
    seconds,
    latencyMs: summary(latencies),
    firstByteMs: summary(firsts),
  }),
);
