import type { Block } from './ast.ts';
import { Budget, DEFAULT_LIMITS, type TemplateLimits } from './budget.ts';
import { globalFunctions } from './globals.ts';
import { Interpreter, Scope } from './interpreter.ts';
import { parseTemplate } from './parser.ts';
import { fromJs, type Value } from './values.ts';

export interface RenderOptions {
  readonly limits?: TemplateLimits;
  /** The clock behind `strftime_now`. */
  readonly now?: () => Date;
}

/**
 * A Jinja template as transformers renders chat templates: jinja2's immutable sandbox with `trim_blocks`,
 * `lstrip_blocks`, loop controls and the `generation` tag. Nothing but its variables can be reached from it.
 */
export class Template {
  private readonly block: Block;

  /** @throws JinjaError when the source does not parse. */
  constructor(source: string) {
    this.block = parseTemplate(source);
  }

  /** @throws JinjaError as jinja2 would raise, and `LimitError` when the limits are reached. */
  render(variables: Readonly<Record<string, unknown>>, options: RenderOptions = {}): string {
    const budget = new Budget(options.limits ?? DEFAULT_LIMITS);
    const globals = new Scope(null, globalFunctions(budget, options.now ?? (() => new Date())));
    const context = new Map<string, Value>();
    for (const [name, value] of Object.entries(variables)) {
      if (value !== undefined) context.set(name, fromJs(value));
    }
    return new Interpreter(budget).run(this.block, new Scope(globals, context));
  }
}
