/** docs/flags.md from the tables. */
import { COMPAT_FLAGS } from './compat_flags.ts';
import type { Flag } from './flag_types.ts';
import { FLAGS, GROUPS } from './flags.ts';
import { FLEET_FLAGS, SIMULATE_FLAGS } from './fleet_flags.ts';
import { defaultText, valueText } from './help.ts';
import { envName } from './parse.ts';

const RULES = `Flags are the same for \`serve\`, \`chat\`, \`run\`, \`plan\` and the benchmarks, and are options in camelCase of \`LLM.load\`.

- \`-\` and \`_\` are interchangeable inside names; \`--flag value\` and \`--flag=value\` are the same.
- Every switch \`--x\` has \`--no-x\`; a switch \`--enable-x\` also has \`--disable-x\`.
- Whole numbers of lengths and sizes may be written \`1k\` (1000), \`1K\` (1024) or \`25.6k\`.
- JSON values may be given in pieces: \`--flag.key value\`, \`--flag.list+ value\`.
- Every flag has an environment variable, \`TOKENMILL_\` and its name; \`--config file.yaml\` reads a file with the same keys.
- Command line before environment before file before default.
- Unknown flags are errors (exit status 2).`;

export function describeFlags(): string {
  const groups = Object.entries(GROUPS).map(([group, heading]) => {
    const rows = Object.values(FLAGS as Readonly<Record<string, Flag>>).filter((flag) => flag.group === group);
    return [
      `## ${heading}`,
      '',
      '| flag | default | environment | meaning |',
      '|---|---|---|---|',
      ...rows.map(flagRow),
      '',
    ];
  });
  const compat = COMPAT_FLAGS.flatMap((flag) => flag.names.map((name) => ({ name, flag }))).sort((a, b) =>
    a.name < b.name ? -1 : 1,
  );
  const verdict = { accept: 'accepted', gone: 'accepted with a warning', refuse: 'refused' } as const;
  return [
    '# Flags',
    '',
    'Generated from `src/config/flags.ts`; do not edit.',
    '',
    RULES,
    '',
    ...groups.flat(),
    '## Commands of a fleet',
    '',
    '`up`, `down`, `get`, `describe`, `logs`, `diff`, `apply`, `delete`, `scale`, `rollout` and `upgrade` take some of these; `--help` says which.',
    '',
    '| flag | default | environment | meaning |',
    '|---|---|---|---|',
    ...Object.values<Flag>(FLEET_FLAGS).map(flagRow),
    '',
    'Those of `simulate`:',
    '',
    '| flag | default | environment | meaning |',
    '|---|---|---|---|',
    ...Object.values<Flag>(SIMULATE_FLAGS).map(flagRow),
    '',
    '## Flags of vLLM without a value here',
    '',
    '| flag | what happens | why |',
    '|---|---|---|',
    ...compat.map(({ name, flag }) => {
      const harmless = flag.harmless ? ` (except ${flag.harmless.map((value) => `\`${value}\``).join(', ')})` : '';
      return `| \`${name.startsWith('-') ? name : `--${name}`}\` | ${verdict[flag.need]}${harmless} | ${cell(flag.text)} |`;
    }),
    '',
  ].join('\n');
}

function flagRow(flag: Flag): string {
  const names = [flag.cli, ...(flag.aliases ?? [])]
    .map((name) => `\`${name}${valueText(flag).replaceAll('|', '\\|')}\``)
    .join(', ');
  const env = [envName(flag), ...(flag.env ? [flag.env] : [])].map((name) => `\`${name}\``).join(', ');
  return `| ${names} | ${cell(defaultText(flag) ?? '')} | ${env} | ${cell(flag.doc)} |`;
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('<', '&lt;');
}
