/** native/generated/ops.h, rendered from the op table: ids, operand and attribute positions, so that C++ names nothing twice. */
import type { OpSpec } from '../../ops/define_op.ts';
import { OP_NAMES, opByName } from '../../ops/index.ts';

/** Step inputs by native id; the names are the fields of StepInputs. */
export const STEP_INPUTS = ['tokenIds', 'positions', 'slotMapping', 'logitRows'] as const;

export function renderOpsHeader(): string {
  const ops = OP_NAMES.map((name) => opByName(name));
  return [
    '// Generated from src/ops by scripts/gen_native_ops.mjs; do not edit.',
    '#pragma once',
    '#include <cstdint>',
    '',
    'namespace mill {',
    '',
    `enum class StepInput : int32_t { ${STEP_INPUTS.map((name, id) => `${snake(name)} = ${id}`).join(', ')} };`,
    '',
    `enum class Op : int32_t { ${OP_NAMES.map((name, id) => `${name} = ${id}`).join(', ')} };`,
    '',
    '// Positions of operands and attributes in a call.',
    ...ops.map(renderPositions),
    '',
    'struct OpInfo {',
    '  const char* name;',
    '  int inputs;',
    '  int outputs;',
    '  int attrs;',
    '  // Bit i: input i may be absent; input i is a weight; input i is a step input; input i is the matrix of a linear.',
    '  unsigned optional;',
    '  unsigned weights;',
    '  unsigned step_inputs;',
    '  unsigned packed;',
    '};',
    '',
    `constexpr int kOpCount = ${ops.length};`,
    'constexpr OpInfo kOps[kOpCount] = {',
    ...ops.map(renderInfo),
    '};',
    '',
    '}  // namespace mill',
    '',
  ].join('\n');
}

function renderPositions(op: OpSpec): string {
  const positions = [
    ...Object.keys(op.inputs).map((name, i) => `in_${snake(name)} = ${i}`),
    ...Object.keys(op.outputs).map((name, i) => `out_${snake(name)} = ${i}`),
    ...Object.keys(op.attrs).map((name, i) => `attr_${snake(name)} = ${i}`),
  ];
  return `namespace op_${op.name} {\nenum : int { ${positions.join(', ')} };\n}`;
}

function renderInfo(op: OpSpec): string {
  const inputs = Object.values(op.inputs);
  const bits = (has: (spec: (typeof inputs)[number]) => boolean) =>
    inputs.reduce((mask, spec, i) => mask | (has(spec) ? 1 << i : 0), 0);
  const fields = [
    `"${op.name}"`,
    inputs.length,
    Object.keys(op.outputs).length,
    Object.keys(op.attrs).length,
    bits((spec) => spec.optional === true),
    bits((spec) => spec.kind === 'weight'),
    bits((spec) => spec.kind === 'step_input'),
    bits((spec) => spec.packed === true),
  ];
  return `    {${fields.join(', ')}},`;
}

function snake(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
