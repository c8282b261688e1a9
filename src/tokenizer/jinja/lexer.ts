import { JinjaError } from './errors.ts';

export type TokenKind =
  | 'text'
  | 'open'
  | 'close'
  | 'begin'
  | 'end'
  | 'name'
  | 'string'
  | 'int'
  | 'float'
  | 'op'
  | 'eof';

/** `open`/`close` are `{{ }}`, `begin`/`end` are `{% %}`. `value` holds the decoded text of strings. */
export interface Token {
  readonly kind: TokenKind;
  readonly value: string;
  readonly line: number;
}

const OPERATORS = ['//', '**', '==', '!=', '>=', '<=', ...'+-/*%~[](){}><=.:|,;'];
/** Names as most templates have them; compiling the pattern of all letters takes longer than reading a template. */
const ASCII_NAME = /[A-Za-z_]\w*(?![\w\u0080-\uffff])/y;
const ASCII_SYMBOL = /[!-/:-@[-^`{-~]/;
const NAME = /[\p{L}\p{Nl}_][\p{L}\p{Nl}\p{Mn}\p{Mc}\p{Nd}\p{Pc}]*/uy;
const NUMBER =
  /0[bB](?:_?[01])+|0[oO](?:_?[0-7])+|0[xX](?:_?[\da-fA-F])+|\d+(?:_\d+)*(?:\.\d+(?:_\d+)*)?(?:[eE][+-]?\d+(?:_\d+)*)?/y;

/**
 * Cuts a template into tokens, with transformers' settings: `trim_blocks` and `lstrip_blocks` on, the last newline of
 * the source dropped, all newlines written as `\n`.
 */
export function tokenize(template: string): Token[] {
  const source = template.replace(/\r\n|\r/g, '\n').replace(/\n$/, '');
  return new Lexer(source).run();
}

class Lexer {
  private readonly source: string;
  private readonly tokens: Token[] = [];
  private at = 0;
  private line = 1;
  private lineCountedTo = 0;

  constructor(source: string) {
    this.source = source;
  }

  run(): Token[] {
    while (this.at < this.source.length) {
      const tag = this.nextTag();
      if (tag < 0) {
        this.add('text', this.source.slice(this.at));
        break;
      }
      const kind = this.source[tag + 1] as string;
      this.text(tag, kind);
      this.at = tag + 2;
      const sign = this.source[this.at];
      if (sign === '-' || sign === '+') this.at++;
      if (kind === '#') this.comment(tag);
      else if (kind === '%') this.block();
      else this.code('}}', 'open', 'close');
    }
    this.at = this.source.length;
    this.add('eof', '');
    return this.tokens;
  }

  private nextTag(): number {
    for (let i = this.source.indexOf('{', this.at); i >= 0; i = this.source.indexOf('{', i + 1)) {
      const next = this.source[i + 1];
      if (next === '{' || next === '%' || next === '#') return i;
    }
    return -1;
  }

  /** The text before a tag, cut as `-` or lstrip_blocks ask. */
  private text(tag: number, kind: string): void {
    const sign = this.source[tag + 2];
    let text = this.source.slice(this.at, tag);
    if (sign === '-') text = text.trimEnd();
    else if (sign !== '+' && kind !== '{') text = this.withoutIndent(text);
    if (text !== '') this.add('text', text);
  }

  private withoutIndent(text: string): string {
    const start = text.lastIndexOf('\n') + 1;
    const atLineStart = start > 0 || this.at === 0 || this.source[this.at - 1] === '\n';
    return atLineStart && text.slice(start).trim() === '' ? text.slice(0, start) : text;
  }

  private comment(tag: number): void {
    const end = this.source.indexOf('#}', this.at);
    if (end < 0) throw this.error('Missing end of comment tag', tag);
    const sign = end > this.at ? this.source[end - 1] : '';
    this.at = end + 2;
    this.afterTag(sign === '-' || sign === '+' ? sign : '', true);
  }

  private block(): void {
    const raw = /\s*raw\s*([-+]?)%\}/y;
    raw.lastIndex = this.at;
    const match = raw.exec(this.source);
    if (!match) {
      this.code('%}', 'begin', 'end');
      return;
    }
    this.at = raw.lastIndex;
    this.afterTag(match[1] as string, true);
    const endRaw = /\{%([-+]?)\s*endraw\s*([-+]?)%\}/g;
    endRaw.lastIndex = this.at;
    const end = endRaw.exec(this.source);
    if (!end) throw this.error('Missing end of raw directive', this.at);
    let text = this.source.slice(this.at, end.index);
    if (end[1] === '-') text = text.trimEnd();
    else if (end[1] === '') text = this.withoutIndent(text);
    if (text !== '') this.add('text', text);
    this.at = endRaw.lastIndex;
    this.afterTag(end[2] as string, true);
  }

  /** What follows a closing delimiter: `-` eats whitespace, trim_blocks one newline. */
  private afterTag(sign: string, isBlock: boolean): void {
    if (sign === '-') {
      while (this.at < this.source.length && /\s/.test(this.source[this.at] as string)) this.at++;
    } else if (isBlock && sign !== '+' && this.source[this.at] === '\n') {
      this.at++;
    }
  }

  private code(close: '}}' | '%}', openKind: TokenKind, closeKind: TokenKind): void {
    this.add(openKind, '');
    const brackets: string[] = [];
    for (;;) {
      this.skipSpace();
      if (this.at >= this.source.length) throw this.error('unexpected end of template', this.at);
      const sign = this.source[this.at] as string;
      if (brackets.length === 0) {
        const signed = (sign === '-' || (sign === '+' && close === '%}')) && this.source.startsWith(close, this.at + 1);
        if (signed || this.source.startsWith(close, this.at)) {
          this.add(closeKind, '');
          this.at += close.length + (signed ? 1 : 0);
          this.afterTag(signed ? sign : '', close === '%}');
          return;
        }
      }
      this.codeToken(brackets);
    }
  }

  private skipSpace(): void {
    while (this.at < this.source.length && /\s/.test(this.source[this.at] as string)) this.at++;
  }

  private codeToken(brackets: string[]): void {
    const char = this.source[this.at] as string;
    if (char === '"' || char === "'") this.string(char);
    else if (/\d/.test(char)) this.number();
    else this.nameOrOperator(char, brackets);
  }

  private nameOrOperator(char: string, brackets: string[]): void {
    const name = ASCII_SYMBOL.test(char) ? null : (this.match(ASCII_NAME) ?? this.match(NAME));
    if (name !== null) {
      this.add('name', name);
      this.at += name.length;
      return;
    }
    const op = OPERATORS.find((candidate) => this.source.startsWith(candidate, this.at));
    if (op === undefined) throw this.error(`unexpected char ${JSON.stringify(char)}`, this.at);
    if ('([{'.includes(op)) brackets.push(op === '(' ? ')' : op === '[' ? ']' : '}');
    else if (')]}'.includes(op) && brackets.pop() !== op) throw this.error(`unexpected '${op}'`, this.at);
    this.add('op', op);
    this.at += op.length;
  }

  private match(pattern: RegExp): string | null {
    pattern.lastIndex = this.at;
    return pattern.exec(this.source)?.[0] ?? null;
  }

  private number(): void {
    NUMBER.lastIndex = this.at;
    const text = (NUMBER.exec(this.source) as RegExpExecArray)[0];
    this.add(/^0[box]/i.test(text) || /^[\d_]+$/.test(text) ? 'int' : 'float', text.replaceAll('_', ''));
    this.at += text.length;
  }

  private string(quote: string): void {
    let end = this.at + 1;
    while (end < this.source.length && this.source[end] !== quote) end += this.source[end] === '\\' ? 2 : 1;
    if (end >= this.source.length) throw this.error('unexpected end of string', this.at);
    this.add('string', decodeEscapes(this.source.slice(this.at + 1, end)));
    this.at = end + 1;
  }

  private add(kind: TokenKind, value: string): void {
    for (; this.lineCountedTo < this.at; this.lineCountedTo++) {
      if (this.source.charCodeAt(this.lineCountedTo) === 10) this.line++;
    }
    this.tokens.push({ kind, value, line: this.line });
  }

  private error(message: string, at: number): JinjaError {
    const line = this.source.slice(0, at).split('\n').length;
    return new JinjaError('TemplateSyntaxError', `${message} (line ${line})`);
  }
}

const SIMPLE_ESCAPES: Readonly<Record<string, string>> = {
  '\n': '',
  '\\': '\\',
  "'": "'",
  '"': '"',
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
};

/** Python's string escapes; an unknown one keeps its backslash. */
function decodeEscapes(text: string): string {
  if (!text.includes('\\')) return text;
  return text.replace(
    /\\(?:([0-7]{1,3})|x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|([\s\S]))/g,
    (whole: string, octal?: string, x?: string, u?: string, U?: string, char?: string) => {
      if (octal !== undefined) return String.fromCodePoint(Number.parseInt(octal, 8));
      const hex = x ?? u ?? U;
      if (hex === undefined) return SIMPLE_ESCAPES[char as string] ?? whole;
      const code = Number.parseInt(hex, 16);
      if (code > 0x10ffff) throw new JinjaError('TemplateSyntaxError', `illegal character in escape ${whole}`);
      return String.fromCodePoint(code);
    },
  );
}
