/** What is wrong with a set of fleet files, gathered so that one run tells all of it. */
import { TokenmillError } from '../../base/errors.ts';
import type { Notice, SourceAt } from './fleet_spec.ts';
import type { YamlNode } from './yaml_tree.ts';

/** Told at once. */
const MAX_PROBLEMS = 50;
/** Kept to be sorted by their place. */
const MAX_KEPT = 2000;
const MAX_NOTICES = 1000;
/** Of one line: names and values of a file may be as long as the file. */
const MAX_TEXT = 1000;

export type Path = readonly (string | number)[];

interface Problem {
  readonly at: SourceAt;
  readonly text: string;
}

export class Problems {
  readonly notices: Notice[] = [];
  private readonly found: Problem[] = [];
  private left = 0;

  get count(): number {
    return this.found.length;
  }

  add(at: SourceAt, text: string): void {
    if (this.found.length < MAX_KEPT) this.found.push({ at, text: clipped(text) });
    else this.left++;
  }

  notice(notice: Notice): void {
    const left = MAX_NOTICES - this.notices.length;
    if (left > 1) this.notices.push({ ...notice, field: clipped(notice.field), text: clipped(notice.text) });
    else if (left === 1)
      this.notices.push({ ...notice, field: '', text: `and others; ${MAX_NOTICES} notices are kept` });
  }

  /** Throws `invalid_manifest` when there are any. */
  throwIfAny(): void {
    if (this.found.length === 0) return;
    const files = [...new Set(this.found.map(({ at }) => at.file))];
    const sorted = [...this.found].sort(
      ({ at: a }, { at: b }) => files.indexOf(a.file) - files.indexOf(b.file) || a.line - b.line || a.column - b.column,
    );
    const lines = sorted.slice(0, MAX_PROBLEMS).map(({ at, text }) => `${at.file}:${at.line}:${at.column} ${text}`);
    const more = this.found.length - lines.length + this.left;
    if (more > 0) lines.push(`and ${more} more`);
    throw new TokenmillError('invalid_manifest', lines.join('\n'), { param: this.found[0]?.at.file ?? null });
  }
}

const clipped = (text: string) => (text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}...` : text);

/** One object of a file while it is read: problems and notices are named by the path of a field. */
export class ObjectContext {
  /** `InferenceService default/llama` */
  readonly object: string;
  readonly at: SourceAt;
  readonly root: YamlNode;
  private readonly problems: Problems;
  private own = 0;

  constructor(object: string, root: YamlNode, problems: Problems) {
    this.object = object;
    this.at = root.at;
    this.root = root;
    this.problems = problems;
  }

  /** Something was wrong with this object: what was read of it is not to be used. */
  get failed(): boolean {
    return this.own > 0;
  }

  error(path: Path, text: string): void {
    this.own++;
    const what = path.length === 0 ? this.object : `${this.object} ${pathText(path)}`;
    this.problems.add(this.locate(path), `${what}: ${text}`);
  }

  notice(path: Path, text: string): void {
    this.problems.notice({ at: this.locate(path), object: this.object, field: pathText(path), text });
  }

  /** Whether the file says something there, sound or not: what is broken is not missing as well. */
  gives(path: Path): boolean {
    return this.locate(path) !== this.locate(path.slice(0, -1));
  }

  /** Where the field stands, or the nearest thing around it. */
  locate(path: Path): SourceAt {
    let node = this.root;
    let at = node.at;
    for (const step of path) {
      if (node.kind === 'map') {
        const entry = node.entries.get(String(step));
        if (entry === undefined) break;
        [at, node] = [entry.at, entry.value];
      } else if (node.kind === 'list') {
        const item = node.items[Number(step)];
        if (item === undefined) break;
        [at, node] = [item.at, item];
      } else break;
    }
    return at;
  }
}

/** `spec.canary[0].predictor` */
function pathText(path: Path): string {
  return path.map((step, i) => (typeof step === 'number' ? `[${step}]` : i === 0 ? step : `.${step}`)).join('');
}
