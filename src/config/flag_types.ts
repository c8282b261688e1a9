/** The row type of a flag table, and the value type each row stands for. */

interface FlagBase {
  /** `--max-num-seqs`; `_` and `-` are interchangeable when parsed. Booleans also get `--no-...`. */
  readonly cli: `--${string}`;
  /** Other spellings, e.g. `-tp`. */
  readonly aliases?: readonly string[];
  /** Environment variable besides `TOKENMILL_<NAME>`. */
  readonly env?: string;
  readonly group: string;
  readonly doc: string;
}

export interface StringFlag extends FlagBase {
  readonly kind: 'string';
  readonly default: string | null;
}

/** `human`: `1k` = 1000, `1K` = 1024, `25.6k`. `auto`: the words `auto` and `-1` mean null. */
export interface IntFlag extends FlagBase {
  readonly kind: 'int';
  readonly default: number | null;
  readonly min: number;
  readonly max: number;
  readonly human?: true;
  readonly auto?: true;
}

/** `exclusiveMin`: `min` itself is not allowed. */
export interface FloatFlag extends FlagBase {
  readonly kind: 'float';
  readonly default: number | null;
  readonly min: number;
  readonly max: number;
  readonly exclusiveMin?: true;
}

export interface BoolFlag extends FlagBase {
  readonly kind: 'bool';
  readonly default: boolean;
}

export interface ChoiceFlag extends FlagBase {
  readonly kind: 'choice';
  readonly of: readonly string[];
  /** Accepted spellings of a choice, e.g. half -> float16. */
  readonly synonyms?: Readonly<Record<string, string>>;
  readonly default: string | null;
}

/** Several values: `--x a b`, `--x a --x b` or, in JSON form, `--x '["a","b"]'`. */
export interface ListFlag extends FlagBase {
  readonly kind: 'list';
  readonly default: readonly string[];
}

/** A JSON object: `--x '{"a":1}'`, `--x.a 1` or `--x.list+ value`. */
export interface JsonFlag extends FlagBase {
  readonly kind: 'json';
  readonly default: Readonly<Record<string, unknown>> | null;
}

export type Flag = StringFlag | IntFlag | FloatFlag | BoolFlag | ChoiceFlag | ListFlag | JsonFlag;
export type FlagTable = Readonly<Record<string, Flag>>;

type OrNull<F extends Flag, T> = null extends F['default'] ? T | null : T;

export type ValueOf<F extends Flag> = F extends BoolFlag
  ? boolean
  : F extends ListFlag
    ? readonly string[]
    : F extends IntFlag | FloatFlag
      ? OrNull<F, number>
      : F extends ChoiceFlag
        ? OrNull<F, F['of'][number]>
        : F extends JsonFlag
          ? OrNull<F, Readonly<Record<string, unknown>>>
          : OrNull<F, string>;

export type ConfigOf<T extends FlagTable> = { readonly [K in keyof T]: ValueOf<T[K]> };

/** A flag of vLLM's surface that has no value here. */
export interface CompatFlag {
  /** Names without `--`; a trailing `*` matches a prefix. */
  readonly names: readonly string[];
  /** `accept`: ignored with one log line. `gone`: removed from vLLM, warned about. `refuse`: an error, unless harmless. */
  readonly need: 'accept' | 'gone' | 'refuse';
  /** Whether a value follows; `list` takes values up to the next flag. */
  readonly takes: 'none' | 'value' | 'list';
  /** Values that ask for nothing and are let through silently. */
  readonly harmless?: readonly string[];
  /** Why it does nothing here, or what to use instead. */
  readonly text: string;
}
