/** `tokenmill pull ID...`: models into the cache that the Python tools share. */
import { TokenmillError } from '../base/errors.ts';
import { type DownloadProgress, locateModel } from '../client/model_source.ts';
import { parseCommandLine } from '../config/command_line.ts';
import { FLAGS } from '../config/flags.ts';
import { formatBytes } from '../config/format.ts';
import { helpText } from '../config/help.ts';
import { progressLine } from './bench/progress.ts';
import { downloadText } from './load_progress.ts';

const { revision, downloadDir, hfToken, offline, ignorePatterns } = FLAGS;
const PULL_FLAGS = { revision, downloadDir, hfToken, offline, ignorePatterns };

const USAGE = [
  'Usage: tokenmill pull ID... [flags]',
  '',
  'Downloads models from the hub; what is there already is kept and continued.',
];

export async function pullCommand(args: readonly string[]): Promise<number> {
  const { values, positionals, notes, help } = await parseCommandLine(args, PULL_FLAGS);
  if (help !== null) {
    console.log(helpText({ usage: USAGE, table: PULL_FLAGS, groups: { model: 'Download' } }, help));
    return 0;
  }
  for (const note of notes) process.stderr.write(`${note}\n`);
  if (positionals.length === 0) {
    throw new TokenmillError('flag_invalid', 'There is no model to pull.', {
      remedy: 'tokenmill pull Qwen/Qwen3-0.6B',
    });
  }
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort(new TokenmillError('aborted', 'Interrupted; what was downloaded is kept.')));
  for (const id of positionals) {
    const line = progressLine(process.stderr);
    let totalBytes = 0;
    const onProgress = (progress: DownloadProgress): void => {
      totalBytes = progress.totalBytes;
      line.show(downloadText(progress));
    };
    const model = await locateModel(id, values, { revision: values.revision, onProgress, signal: stop.signal }).finally(
      () => line.clear(),
    );
    const how = { folder: 'is a folder', cache: 'was in the cache', download: `downloaded ${formatBytes(totalBytes)}` }[
      model.source
    ];
    process.stderr.write(`${id}: ${how}${model.revision === null ? '' : ` (${model.revision.slice(0, 12)})`}\n`);
    console.log(model.path);
  }
  return 0;
}
