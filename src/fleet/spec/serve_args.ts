/**
 * Arguments of a container that serves a model (vLLM, KServe's Hugging Face server, ourselves) -> model, served names and flags of
 * `tokenmill serve`. The replica's own names, ports and keys are the fleet's affair.
 */
import { TokenmillError } from '../../base/errors.ts';
import { FLAGS } from '../../config/flags.ts';
import { parseFlags } from '../../config/parse.ts';

export interface ServeArgs {
  /** As given by --model, --model_id, --model_dir or a positional; null = not given. */
  readonly model: string | null;
  readonly names: readonly string[];
  readonly args: readonly string[];
}

export interface ArgReport {
  error(text: string): void;
  notice(text: string): void;
}

const MODEL = new Set(['--model', '-m', '--model-id', '--model-dir']);
const NAME = new Set(['--model-name', '--served-model-name']);

/** Flags of other servers by another name here. */
const RENAMED: Readonly<Record<string, string>> = {
  '--model-revision': '--revision',
  '--max-length': '--max-model-len',
};

const PLACED = 'the fleet chooses where its replicas listen';

/** Accepted without effect. */
const DROPPED: Readonly<Record<string, string>> = {
  '--port': PLACED,
  '--host': PLACED,
  '--http-port': PLACED,
  '--task': 'the model says what it does',
};

const REFUSED: Readonly<Record<string, string>> = {
  '--config': 'write the flags themselves',
  '--uds': PLACED,
  '--root-path': 'use an HTTPRoute with a URLRewrite',
  '--api-key': 'keys are checked by the gateway: gateway.requireKey',
  '--ssl-certfile': 'replicas listen on the loopback only',
  '--ssl-keyfile': 'replicas listen on the loopback only',
};

/** Values of the Hugging Face server's --backend, which is another flag here. */
const OTHER_BACKENDS = new Set(['auto', 'huggingface', 'vllm']);

/** `command` and `args` of a container, after variables were put in. */
export function serveArgs(command: readonly string[], args: readonly string[], report: ArgReport): ServeArgs {
  const program = (command[0] ?? '').replace(/^.*\//, '');
  if (/^(ba|da|z|a)?sh$/.test(program)) {
    report.error('is a shell script, which is not run here; give the flags of the server in args');
    return { model: null, names: [], args: [] };
  }
  const tokens = [...flagsOfCommand(command), ...args];
  if (tokens[0] === 'serve') tokens.shift();
  const taken = takeOwn(tokens, report);
  const positional = taken.rest[0] !== undefined && !taken.rest[0].startsWith('-') ? taken.rest.shift() : undefined;
  checkFlags(taken.rest, report);
  if (positional !== undefined && taken.model !== null)
    report.error(`name two models: ${positional} and ${taken.model}`);
  return { model: taken.model ?? positional ?? null, names: taken.names, args: taken.rest };
}

/** What follows the program: `python3 -m some.module --x`, `vllm serve MODEL`. */
function flagsOfCommand(command: readonly string[]): string[] {
  const rest = command.slice(1);
  if (/(^|\/)python[\d.]*$/.test(command[0] ?? '') && rest[0] === '-m') rest.splice(0, 2);
  return rest;
}

function takeOwn(tokens: readonly string[], report: ArgReport) {
  // A runtime's arguments come first and the service's after them: the last word counts.
  let model: string | null = null;
  let names: string[] = [];
  const rest: string[] = [];
  for (let i = 0; i < tokens.length; ) {
    const token = tokens[i++] as string;
    const equals = token.startsWith('-') ? token.indexOf('=') : -1;
    const written = equals < 0 ? token : token.slice(0, equals);
    const flag = written.startsWith('--') ? written.replaceAll('_', '-') : written;
    const inline = equals < 0 ? null : token.slice(equals + 1);
    const value = () => inline ?? (i < tokens.length ? (tokens[i++] as string) : '');
    if (MODEL.has(flag)) model = value();
    else if (NAME.has(flag)) {
      names = [value()];
      while (inline === null && i < tokens.length && !(tokens[i] as string).startsWith('-'))
        names.push(tokens[i++] as string);
    } else if (Object.hasOwn(REFUSED, flag)) {
      report.error(`${written} is not supported: ${REFUSED[flag]}`);
      value();
    } else if (Object.hasOwn(DROPPED, flag)) {
      report.notice(`${written} ${value()}: ${DROPPED[flag]}`);
    } else if (flag === '--backend' && OTHER_BACKENDS.has(inline ?? tokens[i] ?? '')) {
      report.notice(`${written} ${value()}: there is one engine here`);
    } else rest.push(...renamed(flag, token, inline));
  }
  return { model, names: names.filter((name) => name !== ''), rest };
}

function renamed(flag: string, token: string, inline: string | null): string[] {
  const name = Object.hasOwn(RENAMED, flag) ? (RENAMED[flag] as string) : null;
  if (name === null) return [token];
  return [inline === null ? name : `${name}=${inline}`];
}

/** Unknown flags and values out of range are told when the file is read, not when the replica starts. */
function checkFlags(args: readonly string[], report: ArgReport): void {
  try {
    const { notes, positionals } = parseFlags(args, FLAGS, { env: {}, file: null });
    for (const note of notes) report.notice(note);
    if (positionals.length > 0) report.error(`${JSON.stringify(positionals[0])} is not a flag`);
  } catch (error) {
    if (!(error instanceof TokenmillError)) throw error;
    report.error(error.message);
  }
}
