/**
 * How many replicas a service should have: the rule of its spec, at the rule's own period, within the bounds of the service.
 * Pure; the simulator runs the very function that the supervisor runs.
 */
import { assert } from '../../base/assert.ts';
import type { ScalingSpec } from '../spec/fleet_spec.ts';
import { decideProactive, type ProactiveMemory } from './proactive.ts';
import type { ScaleDecision, ScaleObserved } from './scale_decision.ts';
import { type HpaRuleMemory, hpaLeast, stepHpa } from './scale_hpa.ts';
import { type KedaRuleMemory, kedaLeast, stepKeda } from './scale_keda.ts';
import { type KpaRuleMemory, stepKpa } from './scale_kpa.ts';
import type { RuleStep } from './scale_step.ts';

/** Memory of another rule, or of another form of this one, is none: the rule was changed. */
const MEMORY_VERSION = 1;

interface TaggedMemory {
  readonly kind: ScalingSpec['rule']['kind'];
  readonly version: number;
  readonly of: unknown;
}

/** Nothing to wait for. */
const FIXED_PERIOD_MS = 3_600_000;

/**
 * `memory` is what the last evaluation gave back, null the first time; `now` in ms since 1970. Before `nextAt` it may be asked as
 * often as one likes: the count stays, except that requests held at zero wake the service at once.
 */
export function decideScale(spec: ScalingSpec, observed: ScaleObserved, memory: unknown, now: number): ScaleDecision {
  const tagged = memory as TaggedMemory | null | undefined;
  const own = tagged?.kind === spec.rule.kind && tagged.version === MEMORY_VERSION ? tagged.of : null;
  const step = stepRule(spec, observed, own, now);
  const { replicas, why } = withinBounds(spec, step.replicas);
  assert(Number.isSafeInteger(replicas), 'a count of replicas that is no whole number');
  return {
    replicas,
    reason: `${spec.rule.kind}: ${step.reason}${why}`,
    memory: { kind: spec.rule.kind, version: MEMORY_VERSION, of: step.memory } satisfies TaggedMemory,
    nextAt: step.nextAt,
  };
}

function stepRule(spec: ScalingSpec, observed: ScaleObserved, memory: unknown, now: number): RuleStep<unknown> {
  const { rule } = spec;
  switch (rule.kind) {
    case 'fixed': {
      const replicas = spec.minReplicas;
      return { replicas, reason: `${replicas} replicas, as written`, memory: null, nextAt: now + FIXED_PERIOD_MS };
    }
    case 'hpa':
      return stepHpa(spec, rule, observed, memory as HpaRuleMemory | null, now);
    case 'keda':
      return stepKeda(rule, observed, memory as KedaRuleMemory | null, now);
    case 'kpa':
      return stepKpa(spec, rule, observed, memory as KpaRuleMemory | null, now);
    case 'proactive':
      return decideProactive(spec, rule.policy, observed, memory as ProactiveMemory | null, now);
  }
}

function withinBounds(spec: ScalingSpec, wanted: number): { readonly replicas: number; readonly why: string } {
  const least = leastOf(spec);
  const replicas = Math.max(least, Math.min(spec.maxReplicas, wanted));
  if (replicas === wanted) return { replicas, why: '' };
  const bound = replicas > wanted ? `minimum of ${least}` : `maximum of ${spec.maxReplicas}`;
  return { replicas, why: `; ${replicas}, the ${bound}` };
}

function leastOf(spec: ScalingSpec): number {
  if (spec.rule.kind === 'hpa') return Math.min(spec.maxReplicas, hpaLeast(spec));
  return kedaLeast(spec);
}
