/** The work both engines do, and the arithmetic of its results; each engine runs in a child process of its own. */

export const DECODE_SEQUENCES = [1, 8, 32];
export const PREFILL_TOKENS = [512, 2048];
const DECODE_PROMPT = 32;
export const CONTEXT = 2304;

/**
 * Scenarios by name. A decode run lets `sequences` requests generate side by side; a prefill run is one request that
 * generates one token.
 */
export function scenarios(names, outputLen) {
  const all = [
    ...DECODE_SEQUENCES.map((sequences) => ({
      name: `decode ${sequences}`,
      kind: 'decode',
      sequences,
      promptLen: DECODE_PROMPT,
      outputLen,
    })),
    ...PREFILL_TOKENS.map((promptLen) => ({
      name: `prefill ${promptLen}`,
      kind: 'prefill',
      sequences: 1,
      promptLen,
      outputLen: 1,
    })),
  ];
  return names === null ? all : all.filter(({ name }) => names.includes(name));
}

/** The same ids for both engines; different for each sequence and run, so that no prefix can be reused. */
export function prompt(run, sequence, length) {
  let state = (run * 8191 + sequence * 131 + 17) >>> 0;
  return Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return 300 + ((state >>> 8) % 1700);
  });
}

/**
 * Tokens a second. Prefill: prompt tokens until the first token. Decode: tokens that come after every sequence has its
 * first and until one has its last, so that all are at work and no prefill is in the figure. `times` holds the times of each
 * sequence's tokens in ms.
 */
export function rate(scenario, startMs, times) {
  if (scenario.kind === 'prefill') return scenario.promptLen / ((times[0][0] - startMs) / 1000);
  const fromMs = Math.max(...times.map(([first]) => first));
  const untilMs = Math.min(...times.map((sequence) => sequence.at(-1)));
  if (untilMs <= fromMs) throw new Error('some sequences ended before all had begun: give a larger --output-len');
  const counted = times.flat().filter((time) => time > fromMs && time <= untilMs).length;
  return counted / ((untilMs - fromMs) / 1000);
}

/**
 * Runs every scenario on `engine` (`generate(promptIds, count, onToken)`), after a short one for the caches, and prints one
 * line of JSON. `first token` is measured from the start of the process.
 */
export async function runChild(spec, load) {
  const engine = await load(spec);
  await engine.generate(prompt(spec.run, 999, 16), 1, () => {});
  const firstTokenMs = Date.now() - spec.spawnedMs;
  const rates = {};
  for (const scenario of spec.scenarios) {
    const times = Array.from({ length: scenario.sequences }, () => []);
    const startMs = performance.now();
    await Promise.all(
      times.map((list, sequence) =>
        engine.generate(prompt(spec.run, sequence + scenario.promptLen, scenario.promptLen), scenario.outputLen, () =>
          list.push(performance.now()),
        ),
      ),
    );
    const short = times.find((list) => list.length !== scenario.outputLen);
    if (short !== undefined)
      throw new Error(`${scenario.name}: ${short.length} tokens came instead of ${scenario.outputLen}`);
    rates[scenario.name] = rate(scenario, startMs, times);
  }
  await engine.close();
  process.stdout.write(`${JSON.stringify({ rates, firstTokenMs, about: engine.about })}\n`);
}
