/** Syntax tree of a template. Expressions have `type` in camel case, statements carry their tag's name. */

export type Expr =
  | { readonly type: 'const'; readonly value: string | number | boolean | null }
  | { readonly type: 'float'; readonly value: number }
  | { readonly type: 'name'; readonly name: string }
  | { readonly type: 'list' | 'tuple'; readonly items: readonly Expr[] }
  | { readonly type: 'dict'; readonly pairs: readonly (readonly [Expr, Expr])[] }
  | { readonly type: 'unary'; readonly op: '-' | '+' | 'not'; readonly operand: Expr }
  | { readonly type: 'binary'; readonly op: BinaryOp; readonly left: Expr; readonly right: Expr }
  | { readonly type: 'and' | 'or'; readonly left: Expr; readonly right: Expr }
  | { readonly type: 'concat'; readonly parts: readonly Expr[] }
  | { readonly type: 'compare'; readonly first: Expr; readonly rest: readonly (readonly [CompareOp, Expr])[] }
  | { readonly type: 'if'; readonly test: Expr; readonly value: Expr; readonly otherwise: Expr | null }
  | { readonly type: 'attribute'; readonly object: Expr; readonly name: string }
  | { readonly type: 'item'; readonly object: Expr; readonly index: Expr }
  | {
      readonly type: 'slice';
      readonly object: Expr;
      readonly start: Expr | null;
      readonly stop: Expr | null;
      readonly step: Expr | null;
    }
  | { readonly type: 'call'; readonly callee: Expr; readonly args: Args }
  | { readonly type: 'filter'; readonly name: string; readonly input: Expr; readonly args: Args }
  | { readonly type: 'test'; readonly name: string; readonly input: Expr; readonly args: Args };

export type BinaryOp = '+' | '-' | '*' | '/' | '//' | '%' | '**';
export type CompareOp = '==' | '!=' | '<' | '<=' | '>' | '>=' | 'in' | 'not in';

export interface Args {
  readonly positional: readonly Expr[];
  readonly named: readonly (readonly [string, Expr])[];
  /** `*args` and `**kwargs`. */
  readonly star: Expr | null;
  readonly doubleStar: Expr | null;
}

export const NO_ARGS: Args = { positional: [], named: [], star: null, doubleStar: null };

export type Target =
  | { readonly type: 'name'; readonly name: string }
  | { readonly type: 'attribute'; readonly object: string; readonly name: string }
  | { readonly type: 'tuple'; readonly items: readonly Target[] };

export interface Signature {
  readonly name: string;
  readonly params: readonly { readonly name: string; readonly fallback: Expr | null }[];
  /** Whether the body names `varargs` or `kwargs`; otherwise extra arguments are an error. */
  readonly usesVarargs: boolean;
  readonly usesKwargs: boolean;
}

export interface FilterCall {
  readonly name: string;
  readonly args: Args;
}

export type Statement =
  | { readonly type: 'text'; readonly text: string }
  | { readonly type: 'output'; readonly value: Expr }
  | { readonly type: 'if'; readonly branches: readonly (readonly [Expr, Block])[]; readonly otherwise: Block | null }
  | ForStatement
  | { readonly type: 'set'; readonly target: Target; readonly value: Expr }
  | {
      readonly type: 'setBlock';
      readonly target: Target;
      readonly filters: readonly FilterCall[];
      readonly body: Block;
    }
  | { readonly type: 'macro'; readonly signature: Signature; readonly body: Block }
  | { readonly type: 'callBlock'; readonly call: Expr; readonly caller: Signature; readonly body: Block }
  | { readonly type: 'filterBlock'; readonly filters: readonly FilterCall[]; readonly body: Block }
  | { readonly type: 'with'; readonly bindings: readonly (readonly [Target, Expr])[]; readonly body: Block }
  | { readonly type: 'generation'; readonly body: Block }
  | { readonly type: 'break' | 'continue' };

export interface ForStatement {
  readonly type: 'for';
  readonly target: Target;
  readonly iterable: Expr;
  readonly test: Expr | null;
  readonly recursive: boolean;
  readonly body: Block;
  readonly otherwise: Block | null;
}

export type Block = readonly Statement[];
