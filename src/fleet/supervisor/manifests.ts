/** The documents that make up the fleet: a file is taken apart, so that another file can replace one of them. */
import { isMap, isScalar, isSeq, LineCounter, parseAllDocuments } from 'yaml';
import { TokenmillError } from '../../base/errors.ts';
import type { SourceAt } from '../spec/fleet_spec.ts';
import type { Manifest } from './state_store.ts';

export interface FleetFile {
  readonly file: string;
  readonly text: string;
}

const MAX_FILE_BYTES = 4 << 20;
const MAX_DOCUMENTS = 2000;

/** Each with as many empty lines before it as it had in its file, so that its places stay what they were. */
export function splitFile({ file, text }: FleetFile): Manifest[] {
  if (text.length > MAX_FILE_BYTES) {
    throw new TokenmillError('invalid_manifest', `${file} is larger than ${MAX_FILE_BYTES >> 20} MiB.`, {
      param: file,
    });
  }
  const documents = parseAllDocuments(text, { lineCounter: new LineCounter(), logLevel: 'silent' });
  if (!Array.isArray(documents)) return [];
  if (documents.length > MAX_DOCUMENTS) {
    throw new TokenmillError('invalid_manifest', `${file} has more than ${MAX_DOCUMENTS} documents.`, { param: file });
  }
  let from = 0;
  return documents.flatMap((document, i) => {
    const end = i === documents.length - 1 ? text.length : document.range[2];
    const [start, own] = [from, text.slice(from, end)];
    from = end;
    // What cannot be read stays in, for the reader to say what is wrong with it.
    const { contents } = document;
    const isEmpty = contents === null || (isScalar(contents) && contents.value === null);
    if (document.errors.length === 0 && isEmpty) return [];
    const linesBefore = text.slice(0, start).split('\n').length - 1;
    return [{ key: keyOf(contents, file, i), file, text: `${'\n'.repeat(linesBefore)}${own}` }];
  });
}

function keyOf(contents: unknown, file: string, index: number): string {
  const other = `${file}#${index}`;
  if (!isMap(contents)) return other;
  const [kind, name] = [contents.get('kind'), contents.getIn(['metadata', 'name'])];
  const namespace = contents.getIn(['metadata', 'namespace']) ?? 'default';
  const group = String(contents.get('apiVersion') ?? '').replace(/\/?[^/]*$/, '');
  if (typeof kind !== 'string' || typeof name !== 'string') return other;
  return `${group} ${kind} ${String(namespace)}/${name}`;
}

/** Documents with the same key give way; files of the same name as well, for what they no longer have. */
export function mergeManifests(before: readonly Manifest[], files: readonly FleetFile[]): Manifest[] {
  const added = files.flatMap(splitFile);
  const keys = new Set(added.map(({ key }) => key));
  const names = new Set(files.map(({ file }) => file));
  return [...before.filter(({ key, file }) => !keys.has(key) && !names.has(file)), ...added];
}

export function filesOf(manifests: readonly Manifest[]): FleetFile[] {
  return manifests.map(({ file, text }) => ({ file, text }));
}

/**
 * Without the object that stands at `at`: its document, or its entry in the `models` of the short form.
 * @returns null when nothing stands there
 */
export function withoutObject(manifests: readonly Manifest[], at: SourceAt): Manifest[] | null {
  for (const [i, manifest] of manifests.entries()) {
    if (manifest.file !== at.file) continue;
    const lines = new LineCounter();
    const [document] = [parseAllDocuments(manifest.text, { lineCounter: lines, logLevel: 'silent' })].flat();
    const contents: unknown = document?.contents;
    if (document === undefined || !isMap(contents) || !contents.range) continue;
    const [first, last] = [lines.linePos(contents.range[0]).line, lines.linePos(contents.range[2]).line];
    if (at.line < first || at.line > last) continue;
    const models: unknown = contents.get('models');
    const without = (text: string | null): Manifest[] => [
      ...manifests.slice(0, i),
      ...(text === null ? [] : [{ ...manifest, text }]),
      ...manifests.slice(i + 1),
    ];
    if (!isSeq(models) && !isMap(models)) return without(null);
    const items = models.items.map((item) => ('key' in (item as object) ? (item as { key: unknown }).key : item));
    const index = items.findLastIndex((item) => {
      const range = (item as { range?: readonly number[] | null }).range;
      return range != null && lines.linePos(range[0] as number).line <= at.line;
    });
    if (index < 0) return null;
    if (models.items.length === 1) return without(null);
    models.items.splice(index, 1);
    return without(`${'\n'.repeat(first - 1)}${document.toString()}`);
  }
  return null;
}
