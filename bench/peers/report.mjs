/** The tables of docs/performance.md from what was measured. */
import { FORMATS } from './formats.mjs';

export function median(values) {
  const ascending = [...values].sort((a, b) => a - b);
  const middle = ascending.length / 2;
  return ascending.length % 2 === 1 ? ascending[Math.floor(middle)] : (ascending[middle - 1] + ascending[middle]) / 2;
}

const digits = (value) => value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2);
const row = (cells) => `| ${cells.join(' | ')} |`;

function table(head, rows) {
  return [row(head), row(head.map((_, at) => (at === 0 ? '---' : '---:'))), ...rows.map(row)].join('\n');
}

/**
 * Most tokens a second that the measured limits allow: a step reads every linear weight once and does two operations a
 * weight and token, and the slower of the two decides. Attention and everything else count as nothing.
 */
export function roofRate({ name, kind, sequences, promptLen }, { elements, headElements }, format, roof) {
  const tokens = kind === 'prefill' ? promptLen : sequences;
  const logitRows = kind === 'prefill' ? 1 : sequences;
  if (!(tokens > 0)) throw new Error(`${name} has no tokens`);
  const operations = 2 * (tokens * (elements - headElements) + logitRows * headElements);
  const { bytes, headBytes, peak } = FORMATS[format];
  const weightBytes = (elements - headElements) * bytes + headElements * headBytes;
  const seconds = Math.max(weightBytes / (roof.bandwidthGBs * 1e9), operations / (roof[peak] * 1e9));
  return tokens / seconds;
}

/** Scenario names in the order they were run. */
function scenarioRows({ model, format, results }, roof, scenarios) {
  return scenarios.map((scenario) => {
    const ours = median(results.tokenmill.map(({ rates }) => rates[scenario.name]));
    const theirs = median(results.llama.map(({ rates }) => rates[scenario.name]));
    const share = ours / roofRate(scenario, model, format, roof);
    const title =
      scenario.kind === 'decode'
        ? `decode, ${scenario.sequences} ${scenario.sequences === 1 ? 'sequence' : 'sequences'}`
        : `prefill, ${scenario.promptLen} tokens`;
    return [
      title,
      `${digits(ours)} tok/s`,
      `${digits(theirs)} tok/s`,
      `${digits(ours / theirs)} x`,
      `${Math.round(share * 100)}%`,
    ];
  });
}

function modelSection(measured, roof, scenarios) {
  const { model, format, starts } = measured;
  const [ours, theirs] = [median(starts.tokenmill), median(starts.llama)];
  const start = [
    'start to first token',
    `${digits(ours / 1000)} s`,
    `${digits(theirs / 1000)} s`,
    `${digits(theirs / ours)} x`,
    '',
  ];
  const head = [`${model.shape}, ${FORMATS[format].title}`, 'Tokenmill', 'node-llama-cpp', 'ratio', 'of the roof'];
  return table(head, [...scenarioRows(measured, roof, scenarios), start]);
}

function modesSection({ shape, modes, work, prefix }) {
  const slowest = modes[0].tokensPerS;
  const rows = modes.map((mode) => [
    mode.mode,
    digits(mode.tokensPerS),
    `${digits(mode.tokensPerS / slowest)} x`,
    `${digits(mode.ttftMeanMs / 1000)} s`,
    `${digits(mode.ttftP95Ms / 1000)} s`,
  ]);
  const first = median(prefix.rounds.map(({ firstMs }) => firstMs));
  const second = median(prefix.rounds.map(({ secondMs }) => secondMs));
  return [
    `### Ways of batching, ${shape}`,
    '',
    `${work.numPrompts} requests that all wait from the start: ${work.prefixLen} shared tokens, about ${work.inputLen} of their own, about ${work.outputLen} to generate, lengths mixed by ${work.rangeRatio * 100}%. The time to the first token counts from the start, so it includes the queue.`,
    '',
    table(['', 'tokens/s', 'against the first', 'TTFT mean', 'TTFT p95'], rows),
    '',
    `Prefix cache: a request of ${prefix.shared + prefix.own} tokens has its first token after ${digits(first)} ms, a second one that shares ${prefix.shared} of them after ${digits(second)} ms (${digits((second / first) * 100)}%).`,
  ].join('\n');
}

export function formatReport({ date, machine, roof, measured, modes, command, peer, rounds, scenarios }) {
  const ours = measured[0].results.tokenmill[0].about;
  const theirs = measured[0].results.llama[0].about;
  return [
    `Measured ${date} with \`${command}\`; medians of ${rounds} rounds in which both engines took turns.`,
    '',
    `- Machine: ${machine.cpu}, ${machine.threads} threads, Node ${machine.node}`,
    `- Roof, measured by the same run: ${digits(roof.bandwidthGBs)} GB/s, ${digits(roof.fp32GFlops)} GFLOP/s in fp32, ${digits(roof.bf16GFlops)} in bf16, ${digits(roof.int8GOps)} GOP/s in int8`,
    `- Tokenmill: ${ours.engine}`,
    `- ${peer}: ${theirs.engine}${theirs.binary === null ? '' : `, ${theirs.binary}`}`,
    '',
    ...measured.flatMap((one) => [modelSection(one, roof, scenarios), '']),
    'Ratio: how many times faster Tokenmill is. Of the roof: share of the tokens a second that the measured bandwidth and arithmetic allow when only the linear weights are counted.',
    ...(modes === null ? [] : ['', modesSection(modes)]),
  ].join('\n');
}
