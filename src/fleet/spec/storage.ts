/** Where a model lies (`storageUri`, `model.uri`) -> what `tokenmill serve` is given. */
import { posix } from 'node:path';

export interface ModelPlace {
  readonly model: string;
  /** Flags that go with it. */
  readonly args: readonly string[];
}

/** A place, or the reason why there is none. */
export type PlaceResult = ModelPlace | { readonly error: string };

/** `namespace/claim` -> folder; null = the claim is there and has no folder. */
export type Claims = ReadonlyMap<string, string | null>;

const REMEDY = 'use hf://owner/model, file:///folder, pvc://claim/path or a folder';

const NO_FETCHER: Readonly<Record<string, string>> = {
  s3: 'an object store',
  gs: 'an object store',
  hdfs: 'a Hadoop file system',
  webhdfs: 'a Hadoop file system',
  http: 'an archive behind HTTP',
  https: 'an archive behind HTTP',
  oci: 'a container image',
  'oci+native': 'a container image',
  'oci+fetch': 'a container image',
  modelscope: 'ModelScope',
};

/** `file` is the manifest's: what is relative is relative to it. */
export function placeOf(uri: string, file: string, namespace: string, claims: Claims): PlaceResult {
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//.exec(uri)?.[1];
  if (scheme === undefined) return folderOf(uri, file);
  const rest = uri.slice(scheme.length + 3);
  if (scheme === 'hf') return hubModel(rest);
  if (scheme === 'file') {
    if (!rest.startsWith('/')) return { error: 'file:// takes an absolute path: file:///models/llama' };
    return place(rest);
  }
  if (scheme === 'pvc') return claimFolder(rest, namespace, claims);
  const what = Object.hasOwn(NO_FETCHER, scheme) ? NO_FETCHER[scheme] : null;
  return {
    error: what
      ? `${scheme}:// is ${what}, which is not fetched here; ${REMEDY}`
      : `unknown scheme ${scheme}://; ${REMEDY}`,
  };
}

function hubModel(rest: string): PlaceResult {
  const [, model, revision] = /^([\w.-]+\/[\w.-]+)(?::([\w./-]+))?$/.exec(rest) ?? [];
  if (model === undefined) return { error: 'is not hf://owner/model or hf://owner/model:revision' };
  return { model, args: revision === undefined ? [] : ['--revision', revision] };
}

function claimFolder(rest: string, namespace: string, claims: Claims): PlaceResult {
  const [claim = '', ...path] = rest.split('/');
  const folder = claims.get(`${namespace}/${claim}`);
  if (folder == null) {
    const cure = 'give a PersistentVolume with hostPath or local and name it in the claim: spec.volumeName';
    return {
      error:
        folder === null
          ? `claim ${claim} has no folder; ${cure}`
          : `no PersistentVolumeClaim ${claim} in the files; ${cure}`,
    };
  }
  if (path.includes('..')) return { error: 'leaves the claim by ..' };
  return place(posix.join(folder, ...path));
}

function folderOf(path: string, file: string): PlaceResult {
  if (path.startsWith('/')) return place(path);
  if (!/^\.\.?(\/|$)/.test(path)) return { error: `is no URI; ${REMEDY} (relative ones begin with ./)` };
  const joined = posix.join(posix.dirname(file.replaceAll('\\', '/')), path);
  return place(joined.startsWith('/') || joined.startsWith('..') ? joined : `./${joined}`);
}

function place(folder: string): ModelPlace {
  return { model: folder.length > 1 ? folder.replace(/\/$/, '') : folder, args: [] };
}

/** Ours is the wider form: `models[].model` also takes what the command line takes, `owner/model` or ''. */
export function placeOfNative(model: string, file: string, claims: Claims, namespace: string): PlaceResult {
  const plain = !model.includes('://') && !/^[./]/.test(model);
  return plain ? { model, args: [] } : placeOf(model, file, namespace, claims);
}
