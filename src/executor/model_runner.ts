import type { LoadedModel } from '../backends/backend.ts';
import { type SerializedError, serializeError, TokenmillError } from '../base/errors.ts';
import { NO_SPANS, type Spans } from '../base/spans.ts';
import type { ExecutorOutput, ScheduledSequence, SchedulerOutput } from '../engine/executor.ts';
import type { TokenLogprobs } from '../engine/types.ts';
import { isPlain, PlainRows } from './plain_rows.ts';
import { Sampler } from './sampler.ts';
import { StepInputsBuilder, type StepLimits } from './step_inputs.ts';

/** Who wants to know how long each call of a run took. */
export interface RunProfile {
  readonly spans: Spans;
  /** Of the program's calls. */
  readonly callNames: readonly string[];
}

/** One model's steps: scheduler output to typed arrays, one native call, logit rows to tokens. */
export class ModelRunner {
  private readonly model: LoadedModel;
  private readonly spans: Spans;
  private readonly callNames: readonly string[];
  /** Of the last run; empty without a profile. */
  private readonly marks: Float64Array;
  private readonly inputs: StepInputsBuilder;
  private readonly sampler: Sampler;
  private readonly plain: PlainRows;
  private readonly tokenIds: Int32Array;
  private readonly logprobs: (TokenLogprobs | null)[] = [];
  private readonly promptLogprobs: (readonly TokenLogprobs[] | null)[] = [];
  private readonly errors: (SerializedError | null)[] = [];
  private readonly output: ExecutorOutput;

  constructor(model: LoadedModel, limits: StepLimits, profile: RunProfile | null = null) {
    this.model = model;
    this.spans = profile?.spans ?? NO_SPANS;
    this.callNames = profile?.callNames ?? [];
    this.marks = profile === null ? new Float64Array(0) : model.profile();
    this.inputs = new StepInputsBuilder(limits);
    this.sampler = new Sampler(model.logits);
    this.plain = new PlainRows(model.logits, limits.maxNumSeqs);
    this.tokenIds = new Int32Array(limits.maxNumSeqs);
    const { tokenIds, logprobs, promptLogprobs, errors } = this;
    this.output = { tokenIds, logprobs, promptLogprobs, errors };
  }

  /** Computes the step; logits stay with the backend. */
  run(step: SchedulerOutput): void {
    this.spans.begin('inputs');
    const inputs = this.inputs.build(step);
    this.spans.end();
    this.spans.begin('run');
    this.model.run(inputs);
    this.spans.children(this.callNames, this.marks);
    this.spans.end();
  }

  /** Draws the tokens of the step just run. */
  sample(step: SchedulerOutput): ExecutorOutput {
    this.spans.begin('sample');
    const { inputs, plain } = this;
    plain.clear();
    for (let i = 0; i < step.sequences.length; i++) {
      const sequence = step.sequences[i] as ScheduledSequence;
      this.tokenIds[i] = -1;
      this.logprobs[i] = null;
      this.promptLogprobs[i] = null;
      this.errors[i] = null;
      if (inputs.promptRows[i] === 0 && inputs.tokenDue[i] === 1 && isPlain(sequence)) {
        plain.add(i, inputs.firstRow[i] as number, sequence);
      } else {
        this.trySequence(i, sequence);
      }
    }
    plain.draw();
    for (let k = 0; k < plain.count; k++) {
      const i = plain.indices[k] as number;
      const tokenId = plain.tokenIds[k] as number;
      if (tokenId >= 0) this.tokenIds[i] = tokenId;
      // Alone it can say why there is no token.
      else this.trySequence(i, step.sequences[i] as ScheduledSequence);
    }
    this.spans.end();
    return this.output;
  }

  private trySequence(i: number, sequence: ScheduledSequence): void {
    try {
      this.sampleSequence(i, sequence);
    } catch (error) {
      // Only what concerns this one row; anything else is a bug and ends the engine.
      if (!(error instanceof TokenmillError)) throw error;
      this.errors[i] = serializeError(error);
    }
  }

  private sampleSequence(i: number, sequence: ScheduledSequence): void {
    const { inputs, sampler } = this;
    const first = inputs.firstRow[i] as number;
    const promptRows = inputs.promptRows[i] as number;
    if (promptRows > 0) {
      const position = Math.max(sequence.tokensComputed, sequence.promptRowsFrom);
      const list: TokenLogprobs[] = [];
      for (let row = 0; row < promptRows; row++) {
        const target = sequence.tokens.data[position + row + 1] as number;
        list.push(sampler.prompt(first + row, target, sequence.sampling));
      }
      this.promptLogprobs[i] = list;
    }
    if (inputs.tokenDue[i] === 0) return;
    const sampled = sampler.sample(first + promptRows, sequence);
    this.tokenIds[i] = sampled.tokenId;
    this.logprobs[i] = sampled.logprobs;
  }
}
