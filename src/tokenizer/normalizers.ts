import { bytesToChars } from './byte_level.ts';
import { compilePattern } from './pattern.ts';
import { asArray, asBoolean, asSpec, asString, type Spec, unsupported } from './spec.ts';

export type Normalizer = (text: string) => string;

const MAX_STEPS = 64;

export function readNormalizer(spec: Spec | null): Normalizer {
  return spec === null ? (text) => text : build(spec);
}

function build(spec: Spec): Normalizer {
  const type = asString(spec['type'], 'normalizer.type');
  switch (type) {
    case 'Sequence': {
      const steps = asArray(spec['normalizers'], 'normalizers')
        .slice(0, MAX_STEPS + 1)
        .map((step) => build(asSpec(step, 'a normalizer')));
      if (steps.length > MAX_STEPS) throw unsupported(`more than ${MAX_STEPS} normalizers`);
      return (text) => steps.reduce((value, step) => step(value), text);
    }
    case 'NFC':
    case 'NFD':
    case 'NFKC':
    case 'NFKD':
      return (text) => text.normalize(type);
    case 'Lowercase':
      return (text) => text.toLowerCase();
    case 'StripAccents':
      return (text) => text.replace(/\p{M}/gu, '');
    case 'Strip': {
      const left = asBoolean(spec['strip_left'], true, 'strip_left');
      const right = asBoolean(spec['strip_right'], true, 'strip_right');
      return (text) => (right ? (left ? text.trim() : text.trimEnd()) : left ? text.trimStart() : text);
    }
    case 'Prepend': {
      const prefix = asString(spec['prepend'], 'prepend');
      return (text) => (text === '' ? '' : prefix + text);
    }
    case 'Replace': {
      const pattern = compilePattern(spec['pattern']);
      const content = asString(spec['content'], 'content');
      return (text) => text.replace(pattern, () => content);
    }
    case 'BertNormalizer':
      return bert(spec);
    case 'ByteLevel':
      return bytesToChars;
    default:
      throw unsupported(`the normalizer ${JSON.stringify(type)}`);
  }
}

/** Cleaning, spaces around CJK, accents and case, as BERT's first tokenizer did. */
function bert(spec: Spec): Normalizer {
  const clean = asBoolean(spec['clean_text'], true, 'clean_text');
  const chinese = asBoolean(spec['handle_chinese_chars'], true, 'handle_chinese_chars');
  const lower = asBoolean(spec['lowercase'], true, 'lowercase');
  const accents = asBoolean(spec['strip_accents'], lower, 'strip_accents');
  return (text) => {
    let value = text;
    if (clean)
      value = value.replace(/(?![\t\n\r])[\ufffd\p{Cc}\p{Cf}\p{Cn}\p{Co}]/gu, '').replace(/(?!\ufeff)\s|\u0085/gu, ' ');
    if (chinese) value = value.replace(CJK, ' $& ');
    if (accents) value = value.normalize('NFD').replace(/\p{Mn}/gu, '');
    return lower ? Array.from(value, (char) => char.toLowerCase()).join('') : value;
  };
}

const CJK =
  /[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b920}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]/gu;
