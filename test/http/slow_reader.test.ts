import { connect } from 'node:net';
import { expect, it } from 'vitest';
import { bench, until } from './harness.ts';

it('a client that stops reading is cut off at the limit; its blocks are freed, others go on', async () => {
  const b = await bench({
    maxUnsentBytes: 64 * 1024,
    flags: ['--max-model-len', '2048', '--max-logprobs', '-1'],
  });
  const url = new URL(await b.server.listen({ host: '127.0.0.1', port: 0 }));
  const socket = connect(Number(url.port), url.hostname);
  socket.on('error', () => {});
  // Whole-vocabulary logprobs: about 100 kB a token, so that the sockets' own buffers fill fast.
  const body = JSON.stringify({ prompt: 'x', max_tokens: 2000, ignore_eos: true, stream: true, logprobs: -1 });
  socket.write(
    `POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
  );
  socket.pause();
  await until(() => b.llm.inFlight === 1, 'the stream runs');
  const other = await fetch(`${url.origin}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ prompt: 'y', max_tokens: 5, ignore_eos: true }),
  });
  expect(other.status).toBe(200);
  await until(() => b.llm.inFlight === 0 && b.blocksInUse() === 0, 'the slow reader is gone');
  expect(await b.server.context.registry.text()).toContain('tokenmill:slow_readers_aborted_total 1');
  socket.destroy();
  await b.close();
});
