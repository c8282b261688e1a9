import type { LogitRows } from '../../backends/backend.ts';
import { loadModelConfig, recordProgram } from '../../models/index.ts';
import { readCheckpoint } from '../../weights/safetensors.ts';
import { cpuIsaLevels, createBackend } from '../backends.ts';

const FOLDER = new URL('../../../test/golden/models/llama', import.meta.url).pathname;

/** LogitRows of the cpu backend, one for each ISA level of this machine; a step was run, so that row 0 exists. */
export function cpuLogitRows(): (readonly [string, LogitRows])[] {
  return cpuIsaLevels().map((isa) => {
    const model = createBackend('cpu').load({
      program: recordProgram(loadModelConfig(FOLDER), { maxModelLen: 16 }),
      tensors: readCheckpoint(FOLDER),
      weightDType: 'bfloat16',
      quantization: 'none',
      kvDType: 'bfloat16',
      blockSize: 16,
      numBlocks: 1,
      maxNumBatchedTokens: 1,
      maxNumSeqs: 1,
      maxLogitRows: 1,
      threads: 1,
      isa,
    });
    model.run({
      sizes: { T: 1, S: 1, R: 1 },
      tokenIds: Int32Array.of(1),
      positions: Int32Array.of(0),
      slotMapping: Int32Array.of(0),
      queryStarts: Int32Array.of(0, 1),
      seqLens: Int32Array.of(1),
      blockTables: Int32Array.of(0),
      maxBlocksPerSeq: 1,
      logitRows: Int32Array.of(0),
    });
    return [`cpu ${isa}`, model.logits] as const;
  });
}
