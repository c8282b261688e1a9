/** docs/ops.md, rendered from the op table. */
import type { OperandSpec, OpSpec } from './define_op.ts';
import { OP_NAMES, opByName } from './index.ts';

export function describeOps(): string {
  const sections = OP_NAMES.map((name, id) => describeOp(opByName(name), id));
  return [
    '# Operations',
    'Generated from `src/ops`; do not edit. T tokens of a step, S sequences, R logit rows; other letters are bound per call.',
    'Tolerance: largest normalised mean square error of a backend against the reference, by weight type (KV type for ops that use the KV cache).',
    ...sections,
    '',
  ].join('\n\n');
}

function describeOp(op: OpSpec, id: number): string {
  const lines = [
    `## ${id} \`${op.name}\``,
    '',
    op.doc,
    '',
    '| operand | | type | shape |',
    '| --- | --- | --- | --- |',
  ];
  for (const [name, spec] of Object.entries(op.inputs)) lines.push(operandRow(name, inputKind(spec), spec));
  for (const [name, spec] of Object.entries(op.outputs)) lines.push(operandRow(name, 'output', spec));
  const attrs = Object.entries(op.attrs);
  if (attrs.length > 0) lines.push('', '| attribute | type | meaning |', '| --- | --- | --- |');
  for (const [name, spec] of attrs) lines.push(`| ${name} | ${spec.type} | ${spec.doc} |`);
  const notes = [op.usesKv ? 'uses the KV cache' : '', op.inplace ? 'may write over its first input' : ''].filter(
    Boolean,
  );
  const tolerance = Object.entries(op.tolerance).map(([dtype, bound]) => `${dtype} ${bound}`);
  lines.push('', `Tolerance: ${tolerance.join(', ')}.${notes.length > 0 ? ` Notes: ${notes.join('; ')}.` : ''}`);
  return lines.join('\n');
}

function inputKind(spec: OperandSpec): string {
  return `${spec.optional ? 'optional ' : ''}${spec.kind.replace('_', ' ')}`;
}

function operandRow(name: string, kind: string, spec: OperandSpec): string {
  return `| ${name} | ${kind} | ${spec.dtype} | [${spec.dims.join(', ')}] |`;
}
