/** One run of Tokenmill: as an application uses it, with the engine on its own thread. */
import { LLM } from '../../dist/index.js';
import { FORMATS } from './formats.mjs';
import { CONTEXT, runChild } from './work.mjs';

async function load({ folder, threads, format }) {
  const llm = await LLM.load(folder, {
    threads,
    maxModelLen: CONTEXT,
    enablePrefixCaching: false,
    // Every start packs, as the peer's does, and nothing is written beside the measurements.
    packedCache: 'off',
    numGpuBlocksOverride: Math.ceil(CONTEXT / 16) + 32 * 8,
    ...FORMATS[format].options,
  });
  const { backend, isa } = llm.plan;
  return {
    about: { engine: `${backend} ${isa}`, threads: llm.plan.threads },
    async generate(ids, count, onToken) {
      for await (const delta of llm.stream(ids, {
        temperature: 0,
        maxTokens: count,
        ignoreEos: true,
        detokenize: false,
      })) {
        for (const _ of delta.tokenIds) onToken();
      }
    },
    close: () => llm.close(),
  };
}

await runChild(JSON.parse(process.argv[2]), load);
