/** What other objects take values from: Secret, ConfigMap, TriggerAuthentication, volumes. Only what the same files hold exists. */
import type { Kind, Objects } from '../objects.ts';
import {
  any,
  bool,
  type Field,
  ignored,
  ignoredAll,
  list,
  map,
  object,
  optional,
  type ReadBy,
  refused,
  refusedAll,
  required,
  str,
} from '../schema.ts';
import type { Claims } from '../storage.ts';
import type { ConfigSource } from './container.ts';
import { OBJECT } from './metadata.ts';

const texts = () => optional(map(str({ allowEmpty: true })));

const secretTable = object({
  ...OBJECT,
  data: texts(),
  stringData: texts(),
  type: optional(str()),
  immutable: optional(bool()),
});

export const SECRET: Kind<ReadBy<typeof secretTable>> = {
  group: '',
  versions: ['v1'],
  kind: 'Secret',
  table: secretTable,
};

const configTable = object({
  ...OBJECT,
  data: texts(),
  binaryData: refused('variables hold text'),
  immutable: optional(bool()),
});

export const CONFIG_MAP: Kind<ReadBy<typeof configTable>> = {
  group: '',
  versions: ['v1'],
  kind: 'ConfigMap',
  table: configTable,
};

const BASE64 = /^[A-Za-z0-9+/\s]*={0,2}\s*$/;

export function readConfig(objects: Objects): ConfigSource {
  const values = new Map<string, ReadonlyMap<string, string>>();
  for (const { cx, namespace, name, value } of objects.read(SECRET)) {
    const own = new Map<string, string>();
    for (const [key, text] of Object.entries(value.data ?? {})) {
      if (!BASE64.test(text)) cx.error(['data', key], 'is not base64; stringData takes plain text');
      own.set(key, Buffer.from(text, 'base64').toString('utf8'));
    }
    for (const [key, text] of Object.entries(value.stringData ?? {})) own.set(key, text);
    values.set(`Secret ${namespace}/${name}`, own);
  }
  for (const { namespace, name, value } of objects.read(CONFIG_MAP)) {
    values.set(`ConfigMap ${namespace}/${name}`, new Map(Object.entries(value.data ?? {})));
  }
  // A broken Secret was reported; nobody who refers to it has a second problem.
  const broken: ReadonlyMap<string, string> = new Map();
  return {
    values: (kind, namespace, name) =>
      values.get(`${kind} ${namespace}/${name}`) ?? (objects.has(kind, namespace, name) ? broken : undefined),
  };
}

const target = () =>
  optional(list(object({ parameter: required(str()), name: required(str()), key: required(str()) })));

const authenticationTable = object({
  ...OBJECT,
  spec: required(
    object({
      secretTargetRef: target(),
      configMapTargetRef: target(),
      env: ignored("queries are answered from the fleet's own metrics"),
      filePath: ignored("queries are answered from the fleet's own metrics"),
      ...refusedAll(
        [
          'podIdentity',
          'boundServiceAccountToken',
          'hashiCorpVault',
          'azureKeyVault',
          'gcpSecretManager',
          'awsSecretManager',
          'oauth2',
        ],
        'there is no such service on this machine; use secretTargetRef or configMapTargetRef',
      ),
    }),
  ),
});

const KEDA = { group: 'keda.sh', versions: ['v1alpha1'], table: authenticationTable } as const;
type Authentication = ReadBy<typeof authenticationTable>;
export const TRIGGER_AUTHENTICATION: Kind<Authentication> = { ...KEDA, kind: 'TriggerAuthentication' };
export const CLUSTER_TRIGGER_AUTHENTICATION: Kind<Authentication> = {
  ...KEDA,
  kind: 'ClusterTriggerAuthentication',
  cluster: true,
};

/** They have no effect, but what they refer to must be there. */
export function checkAuthentications(objects: Objects, config: ConfigSource): void {
  const found = [...objects.read(TRIGGER_AUTHENTICATION), ...objects.read(CLUSTER_TRIGGER_AUTHENTICATION)];
  for (const { cx, namespace, value } of found) {
    const { secretTargetRef, configMapTargetRef } = value.spec;
    for (const [field, kind, refs] of [
      ['secretTargetRef', 'Secret', secretTargetRef],
      ['configMapTargetRef', 'ConfigMap', configMapTargetRef],
    ] as const) {
      for (const [i, ref] of (refs ?? []).entries()) {
        const path = ['spec', field, i];
        const values = config.values(kind, namespace, ref.name);
        if (values === undefined) cx.error(path, `${kind} ${namespace}/${ref.name} is not in the files`);
        else if (!values.has(ref.key)) cx.error([...path, 'key'], `${kind} ${ref.name} has no key ${ref.key}`);
      }
    }
  }
}

const folder = () =>
  optional(
    object({
      path: required(str({ pattern: /^\//, form: 'an absolute path' })),
      type: optional(str()),
      fsType: optional(str()),
    }),
  );

const VOLUME_FIELDS = [
  'capacity',
  'accessModes',
  'persistentVolumeReclaimPolicy',
  'storageClassName',
  'volumeMode',
  'mountOptions',
  'nodeAffinity',
  'claimRef',
] as const;

/** Of a volume only where it lies is read; the rest asks a cluster for it. */
const unread = (names: readonly string[]) =>
  Object.fromEntries(names.map((name): [string, Field<unknown>] => [name, { type: any(), use: 'optional', doc: '' }]));

const volumeTable = object({
  ...OBJECT,
  spec: required(object({ hostPath: folder(), local: folder(), ...unread(VOLUME_FIELDS) })),
});

type Volume = { readonly spec: { readonly hostPath: Folder | null; readonly local: Folder | null } };
type Folder = { readonly path: string };

export const PERSISTENT_VOLUME: Kind<unknown> = {
  group: '',
  versions: ['v1'],
  kind: 'PersistentVolume',
  table: volumeTable,
  cluster: true,
};

const claimTable = object({
  ...OBJECT,
  spec: required(
    object({
      volumeName: optional(str()),
      ...unread([
        'accessModes',
        'resources',
        'storageClassName',
        'volumeMode',
        'selector',
        'volumeAttributesClassName',
      ]),
      ...ignoredAll(['dataSource', 'dataSourceRef'], 'a claim is a folder that is there already'),
    }),
  ),
});

export const PERSISTENT_VOLUME_CLAIM: Kind<unknown> = {
  group: '',
  versions: ['v1'],
  kind: 'PersistentVolumeClaim',
  table: claimTable,
};

type Claim = { readonly spec: { readonly volumeName: string | null } };

export function readClaims(objects: Objects): Claims {
  const folders = new Map<string, string | null>();
  for (const { name, value } of objects.read(PERSISTENT_VOLUME)) {
    const { hostPath, local } = (value as Volume).spec;
    folders.set(name, hostPath?.path ?? local?.path ?? null);
  }
  const claims = new Map<string, string | null>();
  for (const { cx, namespace, name, value } of objects.read(PERSISTENT_VOLUME_CLAIM)) {
    const { volumeName } = (value as Claim).spec;
    const at = volumeName === null ? null : (folders.get(volumeName) ?? null);
    if (at === null)
      cx.notice(['spec'], 'has no folder here: no PersistentVolume with hostPath or local is named by volumeName');
    claims.set(`${namespace}/${name}`, at);
  }
  return claims;
}
