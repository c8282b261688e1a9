/** `tokenmill chat`: a conversation in the terminal. */
import { createInterface, type Interface } from 'node:readline';
import { TokenmillError } from '../base/errors.ts';
import type { GenerationDelta } from '../client/async_llm.ts';
import type { LLMEngine } from '../client/llm_engine.ts';
import { loadEngine } from '../client/load_engine.ts';
import type { SamplingParams } from '../client/sampling_params.ts';
import type { ChatMessage } from '../tokenizer/tokenizer.ts';
import { progressLine } from './bench/progress.ts';
import { parseEngineArgs, printNotes } from './engine_args.ts';
import { loadProgress } from './load_progress.ts';
import { planLine } from './plan_text.ts';
import { statsLine } from './run.ts';
import { SAMPLING_FLAGS, samplingOf } from './sampling_flags.ts';

const USAGE = ['Usage: tokenmill chat [model] [flags]', '', 'Talks with a model; /help lists what else can be typed.'];

const HELP = `/help           this list
/reset          forget the conversation
/system TEXT    set the system message and forget the conversation; without TEXT, show it
/exit           leave (so does Ctrl-D; Ctrl-C ends an answer, or leaves when nothing runs)
`;

export async function chatCommand(args: readonly string[]): Promise<number> {
  const parsed = await parseEngineArgs(args, {
    usage: USAGE,
    own: SAMPLING_FLAGS,
    heading: 'Conversation',
    shown: ['model', 'device'],
    modelFirst: true,
    maxPositionals: 1,
  });
  if (parsed === null) return 0;
  printNotes(parsed.notes);
  const line = progressLine(process.stderr);
  const llm = await loadEngine(parsed.config, loadProgress(line)).finally(() => line.clear());
  try {
    if (!llm.hasChatTemplate) {
      throw new TokenmillError('template_error', 'This model has no chat template.', {
        remedy: 'Use tokenmill run --raw, or give one with --chat-template.',
      });
    }
    process.stderr.write(`${planLine(llm.plan)}\n/help for help\n`);
    await new Conversation(llm, samplingOf(parsed.own), parsed.own.system).talk();
    return 0;
  } finally {
    await llm.close();
  }
}

class Conversation {
  private readonly llm: LLMEngine;
  private readonly params: SamplingParams;
  private readonly terminal: Interface;
  private system: string | null;
  private messages: ChatMessage[] = [];
  private answering: AbortController | null = null;
  private turns = 0;

  constructor(llm: LLMEngine, params: SamplingParams, system: string | null) {
    this.llm = llm;
    this.params = { ...llm.defaultSampling, ...params };
    this.system = system;
    const terminal = process.stdin.isTTY === true;
    this.terminal = createInterface({
      input: process.stdin,
      output: process.stdout,
      terminal,
      prompt: terminal ? '> ' : '',
    });
    this.terminal.on('SIGINT', () => {
      if (this.answering) this.answering.abort();
      else this.terminal.close();
    });
  }

  async talk(): Promise<void> {
    this.terminal.prompt();
    for await (const input of this.terminal) {
      const text = input.trim();
      if (text.startsWith('/')) {
        if (!this.command(text)) break;
      } else if (text !== '') await this.answer(text);
      this.terminal.prompt();
    }
    this.terminal.close();
  }

  /** False = leave. */
  private command(text: string): boolean {
    const [name, ...words] = text.split(/\s+/);
    switch (name) {
      case '/exit':
      case '/quit':
        return false;
      case '/reset':
        this.messages = [];
        break;
      case '/system':
        if (words.length === 0) process.stdout.write(`${this.system ?? '(none)'}\n`);
        else [this.system, this.messages] = [words.join(' '), []];
        break;
      default:
        process.stdout.write(name === '/help' ? HELP : `There is no command ${name}.\n${HELP}`);
    }
    return true;
  }

  private async answer(text: string): Promise<void> {
    const messages = [...this.messages, { role: 'user', content: text }];
    const system = this.system === null ? [] : [{ role: 'system', content: this.system }];
    this.answering = new AbortController();
    try {
      const prompt = this.llm.renderChat([...system, ...messages], { addGenerationPrompt: true });
      const answer = await this.stream(prompt, this.answering.signal);
      this.messages = [...messages, { role: 'assistant', content: answer }];
    } catch (error) {
      // The conversation goes on after what the user can mend, such as a context that is full.
      if (!(error instanceof TokenmillError) || error.code === 'engine_dead') throw error;
      const hint = error.code === 'context_length_exceeded' ? ' /reset forgets the conversation.' : '';
      process.stderr.write(`error: ${error.message}${hint}\n`);
    } finally {
      this.answering = null;
    }
  }

  private async stream(prompt: string, signal: AbortSignal): Promise<string> {
    let answer = '';
    let tokens = 0;
    let last: GenerationDelta | null = null;
    const startMs = performance.now();
    const request = { id: `chat-${this.turns++}`, prompt, addSpecialTokens: false, params: this.params, signal };
    for await (const delta of this.llm.generate(request)) {
      last = delta;
      tokens += delta.tokenIds.length;
      answer += delta.text;
      process.stdout.write(delta.text);
    }
    process.stdout.write('\n');
    if (last !== null) process.stderr.write(`[${statsLine(last, tokens, performance.now() - startMs)}]\n`);
    return answer;
  }
}
