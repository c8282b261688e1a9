/**
 * The one place that wires an engine: model folder + flags -> plan, weights, executor, EngineCore. As a worker's entry it
 * then runs the engine's loop, which never returns to this thread's event loop.
 */
import { isMainThread, type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { systemClock } from '../base/clock.ts';
import { type SerializedError, serializeError } from '../base/errors.ts';
import { NO_SPANS, type Spans } from '../base/spans.ts';
import type { EngineConfig } from '../config/flags.ts';
import { inspectMachine } from '../config/machine.ts';
import type { EnginePlan } from '../config/plan.ts';
import { resolve } from '../config/resolve.ts';
import { EngineCore } from '../engine/engine_core.ts';
import type { EngineCommand, StepOutputs } from '../engine/types.ts';
import { createBackend } from '../executor/backends.ts';
import { type GenerationDefaults, inspectGeneration } from '../executor/generation_defaults.ts';
import { inspectModel, loadExecutor } from '../executor/load.ts';
import { Heartbeat } from './heartbeat.ts';
import { type PackedOutputs, packOutputs } from './packed_outputs.ts';
import { checkProfilePath, type Notice, StepProfile } from './step_profile.ts';

export interface LoadRequest {
  readonly config: EngineConfig;
  /** Folder with config.json and the weights. */
  readonly modelPath: string;
}

export interface LoadProgress {
  readonly phase: 'weights';
  readonly done: number;
  readonly total: number;
}

/** Milliseconds of the phases of loading. */
export interface LoadTimings {
  readonly inspectMs: number;
  readonly loadMs: number;
  /** The weights were mapped as an earlier start packed them. */
  readonly weightsMapped: boolean;
}

export interface LoadedEngine {
  readonly plan: EnginePlan;
  /** Of config.json and generation_config.json, the model's own first. */
  readonly eosTokenIds: readonly number[];
  /** Sampling defaults of generation_config.json. */
  readonly generation: GenerationDefaults;
  readonly timings: LoadTimings;
}

/** Engine thread -> main thread. */
export type EngineThreadMessage =
  | { readonly kind: 'progress'; readonly progress: LoadProgress }
  | { readonly kind: 'loaded'; readonly loaded: LoadedEngine }
  | { readonly kind: 'notice'; readonly notice: Notice }
  | { readonly kind: 'step'; readonly outputs: PackedOutputs }
  | { readonly kind: 'fatal'; readonly error: SerializedError };

export interface EngineThreadData {
  readonly kind: 'tokenmill-engine';
  readonly load: LoadRequest;
  readonly port: MessagePort;
  /** One Int32: how often the main thread has rung. */
  readonly doorbell: SharedArrayBuffer;
  readonly heartbeat: SharedArrayBuffer;
}

export interface WiredEngine {
  readonly core: EngineCore;
  readonly loaded: LoadedEngine;
  /** Is told what the loop does beside the core's steps. */
  readonly spans: Spans;
  /** To be called after each step. */
  poll(): void;
  /** Frees native memory. */
  close(): void;
}

export interface WireCallbacks {
  readonly onProgress?: (progress: LoadProgress) => void;
  readonly onNotice?: (notice: Notice) => void;
  /** Keeps the spans of steps for the caller, whatever `--profile` says. */
  readonly spans?: Spans;
  /** The calling thread is the engine's own. */
  readonly ownsThread?: boolean;
}

/** Throws what inspecting, resolving and loading throw; nothing is held then. */
export async function wireEngine(
  request: LoadRequest,
  { onProgress = () => {}, onNotice = () => {}, spans, ownsThread = false }: WireCallbacks = {},
): Promise<WiredEngine> {
  const startMs = performance.now();
  if (request.config.profile !== null) checkProfilePath(request.config.profile);
  const { config, modelPath } = request;
  const overrides = (config.hfOverrides ?? {}) as Parameters<typeof inspectModel>[1];
  const generation = inspectGeneration(modelPath, overrides ?? {}, generationFolder(request));
  const plan = resolve(
    config,
    inspectModel(modelPath, overrides),
    inspectMachine(config.backend === 'cpu' ? createBackend('cpu').isaLevels : []),
  );
  const inspectedMs = performance.now();
  const profile =
    config.profile === null
      ? null
      : new StepProfile(config.profile, config.profileSteps, plan.servedModelNames[0] ?? '', systemClock, onNotice);
  const recorded = spans ?? profile?.spans;
  let weightsMapped = false;
  const executor = loadExecutor(plan, {
    onProgress: (done, total) => onProgress({ phase: 'weights', done, total }),
    onPacked: ({ state, note }) => {
      weightsMapped = state === 'mapped';
      if (note !== null) onNotice({ level: 'warn', text: note });
    },
    onUnread: (text) => onNotice({ level: 'warn', text }),
    ...(recorded === undefined ? {} : { spans: recorded }),
    ownsThread,
  });
  const loadedMs = performance.now();
  const timings = { inspectMs: inspectedMs - startMs, loadMs: loadedMs - inspectedMs, weightsMapped };
  return {
    core: new EngineCore(plan, executor, systemClock, recorded),
    spans: recorded ?? NO_SPANS,
    loaded: { plan, eosTokenIds: generation.eosTokenIds, generation: generation.defaults, timings },
    poll: () => profile?.poll(),
    close: () => {
      profile?.write();
      executor.close();
    },
  };
}

/** `--generation-config`: the model's own folder, another one, or none. */
function generationFolder({ config, modelPath }: LoadRequest): string | null {
  if (config.generationConfig === 'vllm') return null;
  return config.generationConfig === 'auto' ? modelPath : config.generationConfig;
}

async function runThread({ load, port, doorbell, heartbeat }: EngineThreadData): Promise<void> {
  const post = (message: EngineThreadMessage): void => port.postMessage(message);
  try {
    const engine = await wireEngine(load, {
      onProgress: (progress) => post({ kind: 'progress', progress }),
      onNotice: (notice) => post({ kind: 'notice', notice }),
      ownsThread: true,
    });
    post({ kind: 'loaded', loaded: engine.loaded });
    runLoop(engine, port, new Int32Array(doorbell), new Heartbeat(heartbeat), (outputs) =>
      post({ kind: 'step', outputs: packOutputs(outputs) }),
    );
    engine.close();
  } catch (error) {
    // Nothing is resurrected: the main thread tells every request, health turns red, this thread ends.
    post({ kind: 'fatal', error: serializeError(error) });
  }
  port.close();
}

/** Returns after a shutdown command; throws when an invariant broke. */
function runLoop(
  { core, spans, poll }: WiredEngine,
  inbox: MessagePort,
  doorbell: Int32Array,
  heartbeat: Heartbeat,
  publish: (outputs: StepOutputs) => void,
): void {
  for (;;) {
    const rung = Atomics.load(doorbell, 0);
    for (let received = receiveMessageOnPort(inbox); received; received = receiveMessageOnPort(inbox)) {
      if (!core.apply(received.message as EngineCommand)) return;
    }
    heartbeat.beat(systemClock.now());
    if (!core.hasWork()) {
      Atomics.wait(doorbell, 0, rung);
      continue;
    }
    heartbeat.stepStarts(systemClock.now());
    const outputs = core.step();
    heartbeat.stepEnds(systemClock.now());
    spans.begin('publish');
    publish(outputs);
    spans.end();
    poll();
  }
}

function isEngineData(data: unknown): data is EngineThreadData {
  return data !== null && typeof data === 'object' && (data as { kind?: unknown }).kind === 'tokenmill-engine';
}

if (!isMainThread && isEngineData(workerData)) void runThread(workerData);
