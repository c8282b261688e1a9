/** Progress of downloads and loading on a terminal, and warnings about the model. */
import type { LoadEngineOptions } from '../client/load_engine.ts';
import type { DownloadProgress } from '../client/model_source.ts';
import { formatBytes } from '../config/format.ts';
import type { ProgressLine } from './bench/progress.ts';

export function loadProgress(
  line: ProgressLine,
): Required<Pick<LoadEngineOptions, 'onDownload' | 'onLoad' | 'onNotice'>> {
  return {
    onNotice: ({ level, text }) => {
      if (level !== 'warn') return;
      line.clear();
      process.stderr.write(`${text}\n`);
    },
    onDownload: (progress) => line.show(downloadText(progress)),
    onLoad: ({ done, total }) => line.show(`packing weights: ${done} of ${total}`),
  };
}

export function downloadText({ file, bytes, totalBytes, bytesPerS }: DownloadProgress): string {
  const percent = totalBytes > 0 ? Math.floor((100 * bytes) / totalBytes) : 100;
  const rest = bytesPerS > 0 ? `, ${Math.ceil((totalBytes - bytes) / bytesPerS)} s left` : '';
  return `${percent}% of ${formatBytes(totalBytes)} at ${formatBytes(bytesPerS)}/s${rest}: ${file}`;
}
