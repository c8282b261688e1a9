import type { LoadedModel } from '../backends/backend.ts';
import { assert } from '../base/assert.ts';
import type { Executor, ExecutorOutput, SchedulerOutput } from '../engine/executor.ts';
import { ModelRunner, type RunProfile } from './model_runner.ts';
import type { StepLimits } from './step_inputs.ts';

/** One rank, on the calling thread: `submit` computes, `collect` samples. */
export class UniprocExecutor implements Executor {
  private readonly model: LoadedModel;
  private readonly runner: ModelRunner;
  private pending: SchedulerOutput | null = null;

  constructor(model: LoadedModel, limits: StepLimits, profile: RunProfile | null = null) {
    this.model = model;
    this.runner = new ModelRunner(model, limits, profile);
  }

  submit(step: SchedulerOutput): void {
    assert(this.pending === null, 'a step is collected before the next is submitted');
    this.runner.run(step);
    this.pending = step;
  }

  collect(): ExecutorOutput {
    const step = this.pending;
    assert(step !== null, 'a step is submitted before it is collected');
    this.pending = null;
    return this.runner.sample(step);
  }

  close(): void {
    this.model.close();
  }
}
