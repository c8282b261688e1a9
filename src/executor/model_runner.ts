import type { LoadedModel } from '../backends/backend.ts';
import { type SerializedError, serializeError, TokenmillError } from '../base/errors.ts';
import { NO_SPANS, type Spans } from '../base/spans.ts';
import type { ExecutorOutput, ScheduledSequence, SchedulerOutput } from '../engine/executor.ts';
import type { TokenLogprobs } from '../engine/types.ts';
import { PlainRows } from './plain_rows.ts';
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
    this.plain = new PlainRows(limits.maxNumSeqs);
    this.tokenIds = new Int32Array(limits.maxNumSeqs);
    const { tokenIds, logprobs, promptLogprobs, errors } = this;
    this.output = { tokenIds, logprobs, promptLogprobs, errors };
  }

  /** Computes the step and draws the tokens of plain rows; logits stay with the backend. */
  run(step: SchedulerOutput): void {
    this.spans.begin('inputs');
    const inputs = this.inputs.build(step);
    this.addPlainRows(step);
    this.spans.end();
    this.spans.begin('run');
    this.model.run(inputs, this.plain.draws);
    this.spans.children(this.callNames, this.marks);
    this.spans.end();
  }

  /** The tokens of the step just run. */
  sample(step: SchedulerOutput): ExecutorOutput {
    this.spans.begin('sample');
    const { indices, draws } = this.plain;
    let next = 0;
    for (let i = 0; i < step.sequences.length; i++) {
      const plain = next < draws.count && indices[next] === i;
      const tokenId = plain ? (draws.tokenIds[next++] as number) : -1;
      this.tokenIds[i] = tokenId;
      this.logprobs[i] = null;
      this.promptLogprobs[i] = null;
      this.errors[i] = null;
      // Alone, a plain row without a token can say why.
      if (tokenId < 0) this.trySequence(i, step.sequences[i] as ScheduledSequence);
    }
    this.spans.end();
    return this.output;
  }

  private addPlainRows({ sequences }: SchedulerOutput): void {
    const { inputs, plain } = this;
    plain.clear();
    for (let i = 0; i < sequences.length; i++) {
      const sequence = sequences[i] as ScheduledSequence;
      if (inputs.promptRows[i] === 0 && inputs.tokenDue[i] === 1)
        plain.offer(i, inputs.firstRow[i] as number, sequence);
    }
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
