/**
 * What quantisation costs: KL divergence of the next-token distribution from that of bf16 weights, over a text.
 *
 *   node bench/quality/quality.mjs [--model models/tokenmill-tiny] [--text README.md] [--positions 2000]
 *
 * llama.cpp's types are judged by their weights alone: rounded to Q8_0 or Q4_0, multiplied in fp32. What llama.cpp also
 * loses by rounding activations is not counted against it.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ROOT, setupOrExit } from '../../scripts/setup.mjs';

const WINDOW = 200;
const BLOCK_SIZE = 16;

await setupOrExit();
const dist = (path) => import(join(ROOT, 'dist', path));
const [models, safetensors, writer, backends, tokenizers, { QUANTIZATIONS }, dtypes, q8, q4] = await Promise.all(
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
function distributions(ids, tensors, options) {
  const model = backends.createBackend('cpu').load({
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

/** The checkpoint with every matrix rounded to a type of llama.cpp and back. */
function roundedCheckpoint(target, encode, decode) {
  const tensors = [...checkpoint.values()].map(({ name, dtype, shape, path, offset, byteLength }) => ({
    name,
    dtype: 'F32',
    shape,
    pieces: () => {
      const bytes = new Uint8Array(readFileSync(path).subarray(offset, offset + byteLength)).slice();
      const elements = dtypes.decodeElements(dtype, bytes);
      return [new Uint8Array(Float32Array.from(shape.length > 1 ? decode(encode(elements)) : elements).buffer)];
    },
  }));
  writer.writeSafetensors(join(target, 'model.safetensors'), tensors);
  return safetensors.readCheckpoint(target);
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
for (const [name, encode, decode] of [
  ['Q8_0, weights alone', q8.encodeQ8_0, q8.decodeQ8_0],
  ['Q4_0, weights alone', q4.encodeQ4_0, q4.decodeQ4_0],
]) {
  const target = mkdtempSync(join(tmpdir(), 'tokenmill-quality-'));
  print(name, distributions(ids, roundedCheckpoint(target, encode, decode), { weightDType: 'float32' }));
  rmSync(target, { recursive: true });
}
