/** One run of node-llama-cpp: its prebuilt CPU binary, one context with as many sequences as the work needs. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { CONTEXT, runChild } from './work.mjs';

/** Which of its CPU libraries llama.cpp loaded: it has one for each generation of processors. */
function cpuVariant() {
  if (process.platform !== 'linux') return null;
  return /libggml-cpu-[\w.-]+?\.so/.exec(readFileSync('/proc/self/maps', 'utf8'))?.[0] ?? null;
}

async function load({ gguf, threads, scenarios, peers }) {
  const entry = createRequire(`${peers}/package.json`).resolve('node-llama-cpp');
  const { getLlama } = await import(pathToFileURL(entry).href);
  const llama = await getLlama({ gpu: false, build: 'never', maxThreads: threads, logLevel: 'error' });
  const model = await llama.loadModel({ modelPath: gguf, gpuLayers: 0 });
  const contexts = [];
  // A context holds `contextSize` tokens for each sequence, so long prompts and many sequences are contexts of their own.
  const open = async (sequences, contextSize) => {
    const context = await model.createContext({ sequences, contextSize, threads: { ideal: threads, min: threads } });
    contexts.push(context);
    return Array.from({ length: sequences }, () => context.getSequence());
  };
  const widest = Math.max(1, ...scenarios.map(({ sequences }) => sequences));
  const wide = await open(widest, 256);
  const long = scenarios.some(({ kind }) => kind === 'prefill') ? await open(1, CONTEXT) : [];
  return {
    about: {
      engine: `llama.cpp ${llama.llamaCppRelease.release}, ${llama.buildType} build`,
      threads: contexts[0].currentThreads,
      binary: cpuVariant(),
    },
    async generate(ids, count, onToken) {
      const pool = ids.length + count > 256 ? long : wide;
      const sequence = pool.pop();
      let done = 0;
      for await (const _ of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
        onToken();
        if (++done === count) break;
      }
      await sequence.clearHistory();
      pool.push(sequence);
    },
    async close() {
      for (const context of contexts) await context.dispose();
      await model.dispose();
      await llama.dispose();
    },
  };
}

await runChild(JSON.parse(process.argv[2]), load);
