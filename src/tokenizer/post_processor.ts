import { asArray, asId, asSpec, asString, invalid, type Spec, unsupported } from './spec.ts';

/** Ids that go before and after one sequence (BOS and friends). */
export interface SpecialAffixes {
  readonly before: readonly number[];
  readonly after: readonly number[];
}

const NONE: SpecialAffixes = { before: [], after: [] };

export function readPostProcessor(spec: Spec | null): SpecialAffixes {
  if (spec === null) return NONE;
  const type = asString(spec['type'], 'post_processor.type');
  switch (type) {
    case 'ByteLevel':
      return NONE;
    case 'Sequence':
      return asArray(spec['processors'], 'processors')
        .map((step) => readPostProcessor(asSpec(step, 'a processor')))
        .reduce(
          (inner, outer) => ({
            before: [...outer.before, ...inner.before],
            after: [...inner.after, ...outer.after],
          }),
          NONE,
        );
    case 'BertProcessing':
    case 'RobertaProcessing':
      return { before: [pairId(spec['cls'])], after: [pairId(spec['sep'])] };
    case 'TemplateProcessing':
      return template(spec);
    default:
      throw unsupported(`the post-processor ${JSON.stringify(type)}`);
  }
}

/** `["[CLS]", 101]` */
function pairId(value: unknown): number {
  return asId(asArray(value, 'cls or sep')[1], 'the id of cls or sep');
}

function template(spec: Spec): SpecialAffixes {
  const tokens = asSpec(spec['special_tokens'] ?? {}, 'special_tokens');
  const before: number[] = [];
  const after: number[] = [];
  let seen = false;
  for (const entry of asArray(spec['single'], 'single')) {
    const piece = asSpec(entry, 'a piece of the template');
    if (piece['Sequence'] !== undefined) {
      if (seen) throw unsupported('a template that repeats the text');
      seen = true;
      continue;
    }
    const name = asString(asSpec(piece['SpecialToken'], 'a piece of the template')['id'], 'a special token');
    if (!Object.hasOwn(tokens, name))
      throw invalid(`the template names ${JSON.stringify(name)}, which is not among its special tokens`);
    const ids = asArray(asSpec(tokens[name], 'a special token')['ids'], 'ids').map((id) =>
      asId(id, 'an id of a special token'),
    );
    (seen ? after : before).push(...ids);
  }
  return { before, after };
}

/** `add_bos_token` and `add_eos_token` of tokenizer_config.json overrule the template, as in transformers. */
export function withConfig(
  affixes: SpecialAffixes,
  config: Spec,
  bos: number | null,
  eos: number | null,
): SpecialAffixes {
  let { before, after } = affixes;
  if (bos !== null && typeof config['add_bos_token'] === 'boolean') {
    before = [...(config['add_bos_token'] ? [bos] : []), ...before.filter((id) => id !== bos)];
  }
  if (eos !== null && typeof config['add_eos_token'] === 'boolean') {
    after = [...after.filter((id) => id !== eos), ...(config['add_eos_token'] ? [eos] : [])];
  }
  return { before, after };
}
