/** An EnginePlan for people. */
import { formatBytes } from '../config/format.ts';
import type { EnginePlan } from '../config/plan.ts';

/** One line for the log of a start. */
export function planLine(plan: EnginePlan): string {
  const quantized = plan.quantization === 'none' ? plan.weightDType : plan.quantization;
  const { weightBytes, kvBytes } = plan.memory;
  return [
    `${plan.architecture} on ${plan.backend} (${plan.isa}, ${plan.threads} thread${plan.threads === 1 ? '' : 's'})`,
    `weights ${formatBytes(weightBytes)} ${quantized}`,
    `KV cache ${formatBytes(kvBytes)} ${plan.kvDType} for ${plan.numBlocks * plan.blockSize} tokens`,
    `context ${plan.maxModelLen}, up to ${plan.maxNumSeqs} sequences`,
  ].join('; ');
}

/** Every value with its reason. */
export function planTable(plan: EnginePlan, packed: string): string {
  const { memory, reasons } = plan;
  const total = memory.weightBytes + memory.scratchBytes + memory.kvBytes;
  const rows: (readonly [string, string, string])[] = [
    ['model', plan.modelPath, ''],
    ['served as', plan.servedModelNames.join(', '), ''],
    ['architecture', plan.architecture, ''],
    ['backend', plan.backend, reasons['backend'] ?? ''],
    ['ISA', plan.isa, reasons['isa'] ?? ''],
    ['threads', String(plan.threads), reasons['threads'] ?? ''],
    ['weights', plan.quantization === 'none' ? plan.weightDType : plan.quantization, reasons['weightDType'] ?? ''],
    ['packed cache', plan.packedCache ?? 'off', packed || (reasons['packedCache'] ?? '')],
    ['KV cache', plan.kvDType, reasons['kvDType'] ?? ''],
    ['max_model_len', String(plan.maxModelLen), reasons['maxModelLen'] ?? ''],
    ['max_num_seqs', String(plan.maxNumSeqs), reasons['maxNumSeqs'] ?? ''],
    ['max_num_batched_tokens', String(plan.maxNumBatchedTokens), reasons['maxNumBatchedTokens'] ?? ''],
    ['target_itl_ms', plan.targetItlMs === 0 ? 'off' : String(plan.targetItlMs), reasons['targetItlMs'] ?? ''],
    ['KV blocks', `${plan.numBlocks} of ${plan.blockSize} tokens`, reasons['numBlocks'] ?? ''],
    ['prefix caching', plan.enablePrefixCaching ? 'on' : 'off', ''],
    ['chunked prefill', plan.enableChunkedPrefill ? 'on' : 'off', ''],
    ['scheduling', plan.schedulingPolicy, ''],
    ['', '', ''],
    ['weights', formatBytes(memory.weightBytes), ''],
    ['+ scratch', formatBytes(memory.scratchBytes), ''],
    ['+ KV cache', formatBytes(memory.kvBytes), ''],
    ['= needed', formatBytes(total), ''],
    ['of', formatBytes(memory.availableBytes), reasons['availableBytes'] ?? ''],
  ];
  return alignColumns(rows);
}

/** Left-aligned columns, two spaces apart. */
export function alignColumns(rows: readonly (readonly string[])[]): string {
  const columns = Math.max(...rows.map((row) => row.length));
  const widths = Array.from({ length: columns }, (_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)));
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
