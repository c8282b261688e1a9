/** A Program as text: for a person to read, a test to compare, a profile to name. */
import { opByName } from '../ops/index.ts';
import type { Program, ValueId } from './program.ts';

/** One line a call: `layers.0.q [T, 64] = linear(layers.0.norm, layers.0.q_proj.weight) {eps=1e-6}`. */
export function dumpProgram(program: Program): string {
  const nameOf = (id: ValueId): string => (id < 0 ? '-' : (program.values[id]?.name ?? `?${id}`));
  return program.calls
    .map((call) => {
      const outputs = call.outputs.map((id) => `${nameOf(id)} [${program.values[id]?.shape.join(', ')}]`).join(', ');
      const attrs = Object.entries(call.attrs).map(([name, value]) => `${name}=${value}`);
      const head = outputs === '' ? '' : `${outputs} = `;
      const tail = attrs.length === 0 ? '' : ` {${attrs.join(', ')}}`;
      return `${head}${call.op}(${call.inputs.map(nameOf).join(', ')})${tail}`;
    })
    .join('\n');
}

/** What a profile calls each call: the op, for linears with the weight's shape. */
export function callNames(program: Program): string[] {
  return program.calls.map(({ op, inputs }) => {
    const matrix = Object.values(opByName(op).inputs).findIndex(({ packed }) => packed);
    const weight = program.values[inputs[matrix] ?? -1];
    return weight === undefined ? op : `${op} ${weight.shape.join('x')}`;
  });
}
