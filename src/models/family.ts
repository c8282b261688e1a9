import type { Program } from '../program/program.ts';
import type { ModelConfig } from './config.ts';
import type { ConfigFields } from './fields.ts';
import type { RecordOptions } from './parts.ts';

/** One model family: which fields its config.json has, and the program it records. */
export interface ModelFamily {
  /** Names in `architectures` that this family implements. */
  readonly architectures: readonly string[];
  parse(fields: ConfigFields, architecture: string): ModelConfig;
  record(config: ModelConfig, options: RecordOptions): Program;
}
