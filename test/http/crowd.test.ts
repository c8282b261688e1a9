import { Agent, request } from 'undici';
import { expect, it } from 'vitest';
import { bench, chunksOf, until } from './harness.ts';

it('1,000 clients at once all get their whole answer, half of them streamed', async () => {
  const b = await bench({ script: { reply: 'one two three' }, flags: ['--max-num-seqs', '64'] });
  const url = await b.server.listen({ host: '127.0.0.1', port: 0 });
  const dispatcher = new Agent({ connections: 1000 });
  const answers = await Promise.all(
    Array.from({ length: 1000 }, async (_, i) => {
      const stream = i % 2 === 0;
      const response = await request(`${url}/v1/completions`, {
        method: 'POST',
        dispatcher,
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ prompt: `client ${i}`, max_tokens: 50, stream }),
      });
      const text = await response.body.text();
      if (!stream) return (JSON.parse(text) as { choices: { text: string }[] }).choices[0]?.text;
      return chunksOf(text)
        .map((chunk) => (chunk['choices'] as { text: string }[])[0]?.text)
        .join('');
    }),
  );
  expect(new Set(answers)).toEqual(new Set(['one two three']));
  await until(() => b.llm.inFlight === 0 && b.blocksInUse() === 0, 'everything is freed');
  await dispatcher.close();
  await b.close();
});
