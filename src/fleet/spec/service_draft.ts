/** A service while its files are read: what other objects refer to it by. */
import type { ScalingSpec, ServiceSpec } from './fleet_spec.ts';
import type { ObjectContext, Path } from './problems.ts';

export interface ServiceDraft {
  readonly service: ServiceSpec;
  readonly cx: ObjectContext;
  /** Where it stands in its document. */
  readonly path: Path;
  readonly namespace: string;
  /** Name of the Deployment that a ScaledObject or HorizontalPodAutoscaler targets. */
  readonly deployment: string;
  /** Deployments of its canaries. */
  readonly canaryDeployments: readonly string[];
  /** Services of Kubernetes and pools that lead to it. */
  readonly addresses: readonly string[];
  readonly pools: readonly string[];
  /** Why no other object may scale it; null = one may. */
  readonly scaledByItself: string | null;
}

export function withScaling(draft: ServiceDraft, scaling: ScalingSpec): ServiceDraft {
  return { ...draft, service: { ...draft.service, scaling } };
}
