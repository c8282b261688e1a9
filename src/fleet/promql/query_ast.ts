/** A query in PromQL as a tree, and the errors that name what is wrong with it and where. */
import { TokenmillError } from '../../base/errors.ts';

export interface Matcher {
  readonly label: string;
  readonly operator: '=' | '!=' | '=~' | '!~';
  readonly value: string;
  readonly matches: (value: string) => boolean;
}

/** How the elements of two vectors find each other. */
export interface Matching {
  /** `on` or `ignoring`. */
  readonly on: boolean;
  readonly labels: readonly string[];
  /** Side that may have several elements of one signature. */
  readonly group: 'left' | 'right' | null;
  /** Labels taken over from the other side. */
  readonly include: readonly string[];
}

export interface Grouping {
  readonly without: boolean;
  readonly labels: readonly string[];
}

/** `at` is the column, from 1. Durations in ms. */
export type QueryNode =
  | { readonly kind: 'number'; readonly value: number; readonly at: number }
  | {
      readonly kind: 'selector';
      readonly name: string | null;
      readonly matchers: readonly Matcher[];
      /** null = an instant vector. */
      readonly rangeMs: number | null;
      readonly offsetMs: number;
      readonly at: number;
    }
  | { readonly kind: 'negate'; readonly operand: QueryNode; readonly at: number }
  | {
      readonly kind: 'binary';
      readonly operator: string;
      readonly bool: boolean;
      readonly matching: Matching | null;
      readonly left: QueryNode;
      readonly right: QueryNode;
      readonly at: number;
    }
  | {
      readonly kind: 'aggregate';
      readonly operator: string;
      readonly grouping: Grouping;
      readonly parameter: QueryNode | null;
      readonly operand: QueryNode;
      readonly at: number;
    }
  | { readonly kind: 'call'; readonly name: string; readonly args: readonly QueryNode[]; readonly at: number };

export type ValueType = 'scalar' | 'vector' | 'matrix';

export function queryError(message: string, at: number): TokenmillError {
  return new TokenmillError('invalid_manifest', `query: ${message} at column ${at}.`);
}
