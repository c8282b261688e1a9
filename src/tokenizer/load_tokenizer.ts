import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { TokenmillError } from '../base/errors.ts';
import { JinjaChatTemplate, type NamedTemplates } from './chat_template.ts';
import type { ChatTemplate, Tokenizer } from './tokenizer.ts';
import { JsonTokenizer } from './tokenizer_json.ts';

/** Largest known tokenizer.json is 35 MB (256k entries); beyond this the file is not a tokenizer. */
const MAX_TOKENIZER_BYTES = 256 * 1024 * 1024;
const MAX_SIDE_FILE_BYTES = 16 * 1024 * 1024;

/** The side files of a tokenizer: token settings and templates, as transformers reads them. */
export interface TokenizerFiles {
  readonly tokenizer: Record<string, unknown>;
  readonly config: Record<string, unknown>;
  readonly specialTokensMap: Record<string, unknown>;
  readonly chatTemplate: string | null;
}

/**
 * Reads `tokenizer.json` and its settings from a model folder.
 * @throws TokenmillError `model_files_missing` without a tokenizer.json, `tokenizer_invalid` when it cannot be used.
 */
export async function loadTokenizer(dir: string): Promise<Tokenizer> {
  const path = join(dir, 'tokenizer.json');
  const text = await readBounded(path, MAX_TOKENIZER_BYTES);
  if (text === null) {
    throw new TokenmillError('model_files_missing', `${dir} has no tokenizer.json.`, {
      remedy:
        'Convert the tokenizer with transformers (tokenizer.save_pretrained) or download the whole repository again.',
    });
  }
  const config = await readJsonObject(join(dir, 'tokenizer_config.json'));
  const specials = await readJsonObject(join(dir, 'special_tokens_map.json'));
  return new JsonTokenizer(parseObject(text, path), { ...specials, ...config });
}

/**
 * The chat template of a model folder: `chat_template.jinja`, else `chat_template` of tokenizer_config.json, else
 * `chat_template.json`. Null when the model has none.
 * @param override a template given by the user, used instead of the folder's.
 * @throws TokenmillError `template_error` when the template does not parse.
 */
export async function loadChatTemplate(dir: string, override?: string): Promise<ChatTemplate | null> {
  const config = await readJsonObject(join(dir, 'tokenizer_config.json'));
  const specials = await readJsonObject(join(dir, 'special_tokens_map.json'));
  const source = override ?? (await findTemplate(dir, config));
  return source === null ? null : new JinjaChatTemplate(source, { ...specials, ...config });
}

async function findTemplate(dir: string, config: Record<string, unknown>): Promise<string | NamedTemplates | null> {
  const file = await readBounded(join(dir, 'chat_template.jinja'), MAX_SIDE_FILE_BYTES);
  if (file !== null) return file;
  const inConfig = templateValue(config['chat_template']);
  if (inConfig !== null) return inConfig;
  return templateValue((await readJsonObject(join(dir, 'chat_template.json')))['chat_template']);
}

function templateValue(value: unknown): string | NamedTemplates | null {
  if (typeof value === 'string') return value;
  if (!Array.isArray(value)) return null;
  const named = new Map<string, string>();
  for (const entry of value) {
    const { name, template } = (entry ?? {}) as { name?: unknown; template?: unknown };
    if (typeof name === 'string' && typeof template === 'string') named.set(name, template);
  }
  return named.size === 0 ? null : named;
}

async function readJsonObject(path: string): Promise<Record<string, unknown>> {
  const text = await readBounded(path, MAX_SIDE_FILE_BYTES);
  return text === null ? {} : parseObject(text, path);
}

/** The file's text, or null when it does not exist. */
async function readBounded(path: string, maxBytes: number): Promise<string | null> {
  try {
    const { size } = await stat(path);
    if (size > maxBytes) {
      throw new TokenmillError('tokenizer_invalid', `${path} has ${size} bytes, more than the limit of ${maxBytes}.`);
    }
    return await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

function parseObject(text: string, path: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new TokenmillError('tokenizer_invalid', `${path} is not JSON: ${(cause as Error).message}.`, {
      remedy: 'The file is damaged; download it again.',
      cause,
    });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new TokenmillError('tokenizer_invalid', `${path} is not a JSON object.`);
  }
  return value as Record<string, unknown>;
}
