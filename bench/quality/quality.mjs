/**
 * What quantisation costs: KL divergence of the next-token distribution from that of bf16 weights, over a text, or over random
 * tokens where the model has no tokenizer (golden models).
 *
 *   node bench/quality/quality.mjs [--model models/tokenmill-tiny] [--text README.md] [--positions 2000]
 *
 * llama.cpp's types run on the reference backend (minutes): weights rounded to the type, x of each linear to the 8 bits that
 * llama.cpp rounds it to for this type, multiplied in fp32. Beside 4 bits, embeddings and logits are Q8_0, which is more than
 * the 6 bits that llama.cpp gives them. Its blocks run on from row to row where a row is no multiple of them.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ROOT, setupOrExit } from '../../scripts/setup.mjs';

const WINDOW = 200;
const BLOCK_SIZE = 16;

await setupOrExit();
const dist = (path) => import(join(ROOT, 'dist', path));
const [models, safetensors, writer, backends, tokenizers, { QUANTIZATIONS }, dtypes, q8, q4, q4k, int8, ops, { Rng }] =
  await Promise.all(
    [
      'models/index.js',
      'weights/safetensors.js',
      'weights/write_safetensors.js',
      'executor/backends.js',
      'tokenizer/load_tokenizer.js',
      'base/quantization.js',
      'quant/dtypes.js',
      'quant/q8_0.js',
      'quant/q4_0.js',
      'quant/q4_k.js',
      'quant/int8_channel.js',
      'ops/index.js',
      'base/rng.js',
    ].map(dist),
  );

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: join(ROOT, 'models', 'tokenmill-tiny') },
    text: { type: 'string', default: join(ROOT, 'README.md') },
    positions: { type: 'string', default: '2000' },
  },
});
const folder = values.model;
const program = models.recordProgram(models.loadModelConfig(folder, {}), { maxModelLen: WINDOW });
const checkpoint = safetensors.readCheckpoint(folder);

async function tokenIds() {
  if (!existsSync(join(folder, 'tokenizer.json'))) {
    const rng = new Rng(1);
    return Array.from({ length: Number(values.positions) }, () => rng.int(0, program.vocabSize - 1));
  }
  const tokenizer = await tokenizers.loadTokenizer(folder);
  const encoded = tokenizer.encode(readFileSync(values.text, 'utf8'), { addSpecialTokens: false });
  const ids = [...(encoded.ids ?? encoded)];
  return ids.slice(0, Math.min(Number(values.positions), Math.floor(ids.length / WINDOW) * WINDOW));
}

function windowStep(ids) {
  const upTo = (count) => Int32Array.from({ length: count }, (_, i) => i);
  const blocks = Math.ceil(WINDOW / BLOCK_SIZE);
  return {
    sizes: { T: WINDOW, S: 1, R: WINDOW },
    tokenIds: Int32Array.from(ids),
    positions: upTo(WINDOW),
    slotMapping: upTo(WINDOW),
    queryStarts: Int32Array.of(0, WINDOW),
    seqLens: Int32Array.of(WINDOW),
    blockTables: upTo(blocks),
    maxBlocksPerSeq: blocks,
    logitRows: upTo(WINDOW),
  };
}

/** Log-probabilities of every position of the text. */
function distributions(ids, tensors, options, backend = 'cpu') {
  const model = backends.createBackend(backend).load({
    program,
    tensors,
    weightDType: 'bfloat16',
    quantization: 'none',
    kvDType: 'bfloat16',
    numBlocks: Math.ceil(WINDOW / BLOCK_SIZE),
    threads: 2,
    blockSize: BLOCK_SIZE,
    maxNumBatchedTokens: WINDOW,
    maxNumSeqs: 1,
    maxLogitRows: WINDOW,
    ...options,
  });
  const rows = [];
  for (let from = 0; from + WINDOW <= ids.length; from += WINDOW) {
    model.run(windowStep(ids.slice(from, from + WINDOW)));
    for (let r = 0; r < WINDOW; r++) {
      const logSum = model.logits.logSumExp(r);
      rows.push(Float64Array.from(model.logits.row(r), (logit) => logit - logSum));
    }
  }
  model.close();
  return rows;
}

const roundQ8 = (data) => q8.decodeQ8_0(q8.encodeQ8_0(data));
const roundQ4 = (data) => q4.decodeQ4_0(q4.encodeQ4_0(data));
const roundQ8K = (data, width) => int8.decodeInt8(int8.encodeInt8(data, width, 256));

/** The checkpoint with every matrix rounded to a type of llama.cpp and back. */
function roundedCheckpoint(target, round) {
  const tensors = [...checkpoint.values()].map(({ name, dtype, shape, path, offset, byteLength }) => ({
    name,
    dtype: 'F32',
    shape,
    pieces: () => {
      const bytes = new Uint8Array(readFileSync(path).subarray(offset, offset + byteLength)).slice();
      const elements = dtypes.decodeElements(dtype, bytes);
      if (shape.length === 1) return [new Uint8Array(Float32Array.from(elements).buffer)];
      return [new Uint8Array((shape[0] === program.vocabSize ? roundQ8 : round)(elements).buffer)];
    },
  }));
  writer.writeSafetensors(join(target, 'model.safetensors'), tensors);
  return safetensors.readCheckpoint(target);
}

/** Log-probabilities with weights and the x of every linear rounded as llama.cpp does. */
function peerDistributions(ids, roundWeight, roundX) {
  const op = ops.opByName('linear');
  const exact = op.reference;
  op.reference = (call) => {
    const [[, width], [outputs]] = call.inputShapes;
    const x = (outputs === program.vocabSize ? roundQ8 : roundX)(call.inputs[0], width);
    exact({ ...call, inputs: [x, ...call.inputs.slice(1)] });
  };
  const target = mkdtempSync(join(tmpdir(), 'tokenmill-quality-'));
  try {
    return distributions(ids, roundedCheckpoint(target, roundWeight), { weightDType: 'float32' }, 'reference');
  } finally {
    op.reference = exact;
    rmSync(target, { recursive: true });
  }
}

const best = (row) => row.reduce((top, value, id) => (value > row[top] ? id : top), 0);

function compare(expected, actual) {
  let [sum, max, same] = [0, 0, 0];
  for (const [at, p] of expected.entries()) {
    const q = actual[at];
    const kl = p.reduce((total, logP, id) => total + Math.exp(logP) * (logP - q[id]), 0);
    sum += kl;
    max = Math.max(max, kl);
    if (best(p) === best(q)) same++;
  }
  const count = expected.length;
  return [(sum / count).toExponential(1), max.toExponential(1), `${((100 * same) / count).toFixed(1)}%`];
}

const ids = await tokenIds();
const expected = distributions(ids, checkpoint, {});
const print = (name, actual) => console.log(`| ${[name, ...compare(expected, actual)].join(' | ')} |`);
console.log(
  `| weights (${expected.length} positions) | mean KL | max KL | same first choice |\n| --- | ---: | ---: | ---: |`,
);
print('float32, KV float32', distributions(ids, checkpoint, { weightDType: 'float32', kvDType: 'float32' }));
for (const quantization of QUANTIZATIONS.filter((name) => name !== 'none')) {
  print(quantization, distributions(ids, checkpoint, { quantization }));
}
for (const [name, roundWeight, roundX] of [
  ["llama.cpp's Q8_0", roundQ8, roundQ8],
  ["llama.cpp's Q4_K", q4k.roundToQ4K, roundQ8K],
  ["llama.cpp's Q4_0", roundQ4, roundQ8],
]) {
  print(name, peerDistributions(ids, roundWeight, roundX));
}
