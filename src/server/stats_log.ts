/** A log line with throughput and queue every few seconds while there is something to say. */
import type { Logger } from 'pino';
import type { AsyncLLM } from '../client/async_llm.ts';

const round = (value: number): number => Math.round(value * 10) / 10;

/** Returns the function that stops it. */
export function startStatsLog(llm: AsyncLLM, log: Logger, intervalS: number): () => void {
  let promptTokens = 0;
  let generatedTokens = 0;
  let queries = 0;
  let hits = 0;
  let last = { numRunning: 0, numWaiting: 0, kvUsage: 0 };
  let wasIdle = true;
  const off = llm.onStats((stats) => {
    promptTokens += stats.promptTokens;
    generatedTokens += stats.generatedTokens;
    queries += stats.prefixQueries;
    hits += stats.prefixHits;
    last = stats;
  });
  const timer = setInterval(() => {
    const isIdle = promptTokens === 0 && generatedTokens === 0 && last.numRunning === 0 && last.numWaiting === 0;
    if (!isIdle || !wasIdle) {
      log.info(
        {
          promptTokensPerS: round(promptTokens / intervalS),
          generationTokensPerS: round(generatedTokens / intervalS),
          running: last.numRunning,
          waiting: last.numWaiting,
          kvUsagePercent: round(last.kvUsage * 100),
          prefixHitPercent: queries === 0 ? 0 : round((hits / queries) * 100),
        },
        'engine',
      );
    }
    wasIdle = isIdle;
    promptTokens = 0;
    generatedTokens = 0;
  }, intervalS * 1000);
  timer.unref();
  return () => {
    clearInterval(timer);
    off();
  };
}
