/**
 * Writes the pages of docs/ that come from tables of the sources: flags, metrics, ops, errors, the fleet file. `npm run docs`; a test fails
 * when a page differs from its table.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ROOT } from './setup.mjs';

/** Modules that hold the tables, from the root of the sources. */
export const TABLES = {
  flags: 'config/describe',
  metrics: 'metrics/describe',
  ops: 'ops/describe',
  errors: 'base/errors',
  fleetFile: 'fleet/spec/describe',
};

function errorsPage(errors) {
  const rows = Object.entries(errors).map(
    ([code, { status, type, exitCode, doc }]) => `| \`${code}\` | ${status} | \`${type}\` | ${exitCode} | ${doc} |`,
  );
  return [
    '# Errors',
    '',
    'Generated from `src/base/errors.ts`; do not edit. Every error that a user can cause: its code, the HTTP status and the `type` of',
    'the error object that the server answers with, and the exit code of the command line.',
    '',
    '| Code | Status | Type | Exit code | Meaning |',
    '| --- | --- | --- | --- | --- |',
    ...rows,
    '',
  ].join('\n');
}

/** A page begins with its heading; a table's writer may leave it to us. */
function page(title, source, body) {
  if (body.startsWith('# ')) return `${body.trimEnd()}\n`;
  return `# ${title}\n\nGenerated from \`${source}\`; do not edit.\n\n${body.trimEnd()}\n`;
}

/** File name in docs/ -> text, from the modules named in {@link TABLES}. */
export function renderPages({ flags, metrics, ops, errors, fleetFile }) {
  return {
    'flags.md': page('Flags', 'src/config/flags.ts', flags.describeFlags()),
    'metrics.md': page('Metrics', 'src/metrics/definitions.ts', metrics.describeMetrics()),
    'ops.md': page('Operations', 'src/ops', ops.describeOps()),
    'errors.md': errorsPage(errors.ERRORS),
    'fleet_file.md': page('The fleet file', 'src/fleet/spec/kinds', fleetFile.describeFleetFile()),
  };
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const modules = {};
  for (const [name, path] of Object.entries(TABLES)) {
    modules[name] = await import(pathToFileURL(join(ROOT, 'dist', `${path}.js`)).href);
  }
  for (const [name, text] of Object.entries(renderPages(modules))) writeFileSync(join(ROOT, 'docs', name), text);
}
