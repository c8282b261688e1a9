/** What went wrong in a template; `kind` is the Python exception jinja2 would raise. Never leaves the tokenizer room. */
export type JinjaErrorKind =
  | 'TemplateSyntaxError'
  | 'TemplateError'
  | 'TemplateRuntimeError'
  | 'UndefinedError'
  | 'SecurityError'
  | 'TypeError'
  | 'ValueError'
  | 'KeyError'
  | 'IndexError'
  | 'ZeroDivisionError'
  | 'OverflowError'
  | 'LimitError';

export class JinjaError extends Error {
  override readonly name = 'JinjaError';
  readonly kind: JinjaErrorKind;

  constructor(kind: JinjaErrorKind, message: string) {
    super(message);
    this.kind = kind;
  }
}

export function typeError(message: string): JinjaError {
  return new JinjaError('TypeError', message);
}
