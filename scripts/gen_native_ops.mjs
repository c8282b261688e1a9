/** Writes native/generated/ops.h from the op table; needs the compiled TypeScript (npm run setup). */
import { writeFileSync } from 'node:fs';
import { renderOpsHeader } from '../dist/backends/cpu/render_ops_header.js';

writeFileSync(new URL('../native/generated/ops.h', import.meta.url), renderOpsHeader());
