import { charsToBytes } from './byte_level.ts';
import { compilePattern, readPattern } from './pattern.ts';
import { prependScheme } from './pre_tokenizers.ts';
import { asArray, asBoolean, asCount, asSpec, asString, type Spec, unsupported } from './spec.ts';

/** One step from tokens to text that keeps only what it must hold back; `decode` and the detokenizer both run it. */
export interface DecoderStage {
  push(token: string, emit: (text: string) => void): void;
  end(emit: (text: string) => void): void;
}

/** Makes the stages of one decoding. */
export type DecoderFactory = () => DecoderStage[];

export interface DecoderPlan {
  readonly make: DecoderFactory;
  readonly isByteLevel: boolean;
  readonly hasByteFallback: boolean;
}

const MAX_STEPS = 64;

/** @throws TokenmillError `tokenizer_invalid` naming a decoder that is not supported. */
export function readDecoder(spec: Spec | null): DecoderPlan {
  const flat = spec === null ? [] : flatten(spec);
  const types = flat.map((step) => asString(step['type'], 'decoder.type'));
  if (spec === null) return { make: () => [spaced()], isByteLevel: false, hasByteFallback: false };
  let fused = false;
  const makers = flat.map((step, i) => {
    const maker = stageMaker(types[i] as string, step, fused);
    fused ||= types[i] === 'Fuse' || types[i] === 'ByteLevel';
    return maker;
  });
  return {
    make: () => makers.map((make) => make()),
    isByteLevel: types.includes('ByteLevel'),
    hasByteFallback: types.includes('ByteFallback'),
  };
}

function flatten(spec: Spec): Spec[] {
  if (spec['type'] !== 'Sequence') return [spec];
  const steps = asArray(spec['decoders'], 'decoders').map((step) => asSpec(step, 'a decoder'));
  if (steps.length > MAX_STEPS || steps.some((step) => step['type'] === 'Sequence'))
    throw unsupported('nested decoders');
  return steps;
}

/** @param fused whether the steps before have joined the tokens, so that what arrives are parts of one text. */
function stageMaker(type: string, spec: Spec, fused: boolean): () => DecoderStage {
  switch (type) {
    case 'ByteLevel':
      return byteLevel;
    case 'ByteFallback':
      return byteFallback;
    case 'Fuse':
      return () => perToken((token) => token);
    case 'Replace': {
      const { source, isRegex } = readPattern(spec['pattern']);
      if (fused && (isRegex || Array.from(source).length > 1))
        throw unsupported('a decoder that replaces across tokens');
      const pattern = compilePattern(spec['pattern']);
      const content = asString(spec['content'], 'content');
      return () => perToken((token) => token.replace(pattern, () => content));
    }
    case 'Strip': {
      const content = asString(spec['content'], 'content');
      const start = asCount(spec['start'], 0, 1024, 'start');
      const stop = asCount(spec['stop'], 0, 1024, 'stop');
      return fused
        ? () => stripText(content, start, stop)
        : () => perToken((token) => stripToken(token, content, start, stop));
    }
    case 'Metaspace': {
      const mark = asString(spec['replacement'] ?? '\u2581', 'replacement');
      const keepsFirst = prependScheme(spec) === 'never';
      return () =>
        perToken((token, first) => (first && !keepsFirst ? token.replaceAll(mark, '') : token.replaceAll(mark, ' ')));
    }
    case 'WordPiece': {
      const prefix = asString(spec['prefix'] ?? '##', 'prefix');
      const tidy = asBoolean(spec['cleanup'], true, 'cleanup');
      return () =>
        perToken((token, first) => {
          const joined = first ? token : token.startsWith(prefix) ? token.slice(prefix.length) : ` ${token}`;
          return tidy ? cleanUp(joined) : joined;
        });
    }
    case 'BPEDecoder': {
      const suffix = asString(spec['suffix'] ?? '</w>', 'suffix');
      return () => suffixed(suffix);
    }
    default:
      throw unsupported(`the decoder ${JSON.stringify(type)}`);
  }
}

function perToken(map: (token: string, first: boolean) => string): DecoderStage {
  let first = true;
  return {
    push: (token, emit) => {
      emit(map(token, first));
      first = false;
    },
    end: () => undefined,
  };
}

/** Without a decoder, tokens are joined by spaces. */
function spaced(): DecoderStage {
  return perToken((token, first) => (first ? token : ` ${token}`));
}

/** Bytes to text; an incomplete character waits for the next token. */
function byteLevel(): DecoderStage {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  return {
    push: (token, emit) => emit(decoder.decode(charsToBytes(token), { stream: true })),
    end: (emit) => emit(decoder.decode()),
  };
}

const BYTE_TOKEN = /^<0x[0-9A-Fa-f]{2}>$/;

export function byteOfToken(token: string): number | null {
  return BYTE_TOKEN.test(token) ? Number.parseInt(token.slice(3, 5), 16) : null;
}

/**
 * A run of byte tokens is text when all of it is UTF-8, and one U+FFFD a byte when it is not. So it waits for the end
 * of the run, as later bytes decide about earlier ones.
 */
function byteFallback(): DecoderStage {
  let bytes: number[] = [];
  const flush = (emit: (text: string) => void): void => {
    if (bytes.length === 0) return;
    emit(strictUtf8(Uint8Array.from(bytes)) ?? '\ufffd'.repeat(bytes.length));
    bytes = [];
  };
  return {
    push: (token, emit) => {
      const byte = byteOfToken(token);
      if (byte !== null) {
        bytes.push(byte);
        return;
      }
      flush(emit);
      emit(token);
    },
    end: flush,
  };
}

function strictUtf8(bytes: Uint8Array): string | null {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

function stripToken(token: string, content: string, start: number, stop: number): string {
  let from = 0;
  let to = token.length;
  for (let i = 0; i < start && token.startsWith(content, from); i++) from += content.length;
  for (let i = 0; i < stop && to - content.length >= from && token.endsWith(content, to); i++) to -= content.length;
  return token.slice(from, to);
}

/** Strips the text as a whole: at most `start` at its beginning, `stop` at its end, which are held back. */
function stripText(content: string, start: number, stop: number): DecoderStage {
  let left = start;
  let held = '';
  const holdable = content.length * stop;
  return {
    push: (fragment, emit) => {
      let text = held + fragment;
      held = '';
      while (left > 0 && text.startsWith(content)) {
        text = text.slice(content.length);
        left--;
      }
      if (text !== '') left = 0;
      let cut = text.length;
      while (holdable > 0 && text.length - cut < holdable && text.endsWith(content, cut)) cut -= content.length;
      held = text.slice(cut);
      emit(text.slice(0, cut));
    },
    end: () => undefined,
  };
}

/** Words end in a suffix that becomes a space, except at the very end; so one token waits. */
function suffixed(suffix: string): DecoderStage {
  let held: string | null = null;
  return {
    push: (token, emit) => {
      if (held !== null) emit(held.replaceAll(suffix, ' '));
      held = token;
    },
    end: (emit) => {
      if (held !== null) emit(held.replaceAll(suffix, ''));
      held = null;
    },
  };
}

const CLEAN_UPS = [
  [' .', '.'],
  [' ?', '?'],
  [' !', '!'],
  [' ,', ','],
  [" ' ", "'"],
  [" n't", "n't"],
  [" 'm", "'m"],
  [' do not', " don't"],
  [" 's", "'s"],
  [" 've", "'ve"],
  [" 're", "'re"],
] as const;

function cleanUp(token: string): string {
  return CLEAN_UPS.reduce((text, [from, to]) => text.replaceAll(from, to), token);
}
