/** Kinds without effect on one machine, and why others are refused. */
import type { Kind, Objects } from '../objects.ts';
import { any } from '../schema.ts';

interface Noticed {
  readonly group: string;
  readonly kinds: readonly string[];
  readonly text: string;
}

export const NOTICED: readonly Noticed[] = [
  {
    group: 'monitoring.coreos.com',
    kinds: ['ServiceMonitor', 'PodMonitor', 'PrometheusRule'],
    text: 'has no effect here: the fleet scrapes its replicas itself and serves /metrics',
  },
  {
    group: 'networking.k8s.io',
    kinds: ['NetworkPolicy'],
    text: 'has no effect here: replicas listen on the loopback only',
  },
  { group: 'policy', kinds: ['PodDisruptionBudget'], text: 'has no effect here: nothing evicts replicas' },
  { group: 'karpenter.sh', kinds: ['NodePool'], text: 'has no effect here: there is one machine' },
  {
    group: '',
    kinds: ['ServiceAccount', 'Namespace'],
    text: 'has no effect here: there are no accounts and no borders of namespaces',
  },
  {
    group: 'rbac.authorization.k8s.io',
    kinds: ['Role', 'RoleBinding', 'ClusterRole', 'ClusterRoleBinding'],
    text: 'has no effect here: there are no accounts',
  },
];

const CLUSTER = ['NodePool', 'Namespace', 'ClusterRole', 'ClusterRoleBinding'];

export const NOTICED_KINDS: readonly Kind<unknown>[] = NOTICED.flatMap(({ group, kinds }) =>
  kinds.map((kind) => ({
    group,
    kind,
    versions: ['v1', 'v1alpha1', 'v1beta1'],
    table: any(),
    ...(CLUSTER.includes(kind) && { cluster: true as const }),
  })),
);

export function noticeKinds(objects: Objects): void {
  for (const { group, kinds, text } of NOTICED) {
    for (const { cx } of NOTICED_KINDS.filter((kind) => kind.group === group && kinds.includes(kind.kind)).flatMap(
      (kind) => objects.read(kind),
    )) {
      cx.notice([], text);
    }
  }
}

/** By kind; of all others it is only said that they are not known. */
export const REFUSED_KINDS: Readonly<Record<string, string>> = {
  Deployment: 'what serves a model is an InferenceService or an entry of models',
  StatefulSet: 'what serves a model is an InferenceService or an entry of models',
  Pod: 'what serves a model is an InferenceService or an entry of models',
  Service: 'every service of the files has its name already: that of the InferenceService, and NAME-predictor',
  Ingress: 'use an HTTPRoute',
  LLMInferenceServiceConfig: 'write its fields into the LLMInferenceService',
  LeaderWorkerSet: 'a model runs in one process on one machine',
  TrainedModel: 'ModelMesh does not run here; one service serves one model',
  LocalModelCache: 'downloads are shared by all replicas of the machine already',
  LocalModelNamespaceCache: 'downloads are shared by all replicas of the machine already',
  LocalModelNodeGroup: 'there is one machine',
  ClusterStorageContainer: 'models are fetched by Tokenmill itself',
  InferenceModelRewrite: 'use canaries of the service, or an HTTPRoute',
  InferencePoolImport: 'there is one cluster',
  ReferenceGrant: 'backends of routes are taken from the namespace of the route',
  ScaledJob: 'jobs are not run here',
  HTTPScaledObject: 'the gateway holds and counts requests by itself; use a ScaledObject or scaling',
  InterceptorRoute: 'the gateway holds and counts requests by itself; use an HTTPRoute',
  GRPCRoute: 'replicas speak HTTP; use an HTTPRoute',
};
