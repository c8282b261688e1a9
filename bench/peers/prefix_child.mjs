/** Time to the first token of a request, and of a second one that shares its first 1,024 tokens. */
import { LLM } from '../../dist/index.js';
import { prompt } from './work.mjs';

const SHARED = 1024;
const OWN = 16;
const spec = JSON.parse(process.argv[2]);
const llm = await LLM.load(spec.folder, { threads: spec.threads, maxModelLen: SHARED * 2 });

async function ttftMs(ids) {
  const startMs = performance.now();
  for await (const delta of llm.stream(ids, { temperature: 0, maxTokens: 1, ignoreEos: true })) {
    if (delta.tokenIds.length > 0) return { ms: performance.now() - startMs, cachedTokens: delta.cachedTokens };
  }
  throw new Error('no token came');
}

await ttftMs(prompt(0, 0, 64));
const rounds = [];
for (let round = 1; round <= 3; round++) {
  const shared = prompt(round, 1, SHARED);
  const first = await ttftMs([...shared, ...prompt(round, 2, OWN)]);
  const second = await ttftMs([...shared, ...prompt(round, 3, OWN)]);
  rounds.push({ firstMs: first.ms, secondMs: second.ms, cachedTokens: second.cachedTokens });
}
await llm.close();
process.stdout.write(`${JSON.stringify({ shared: SHARED, own: OWN, rounds })}\n`);
