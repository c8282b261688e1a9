/** `tokenmill serve`: load, listen, drain. */
import { setImmediate } from 'node:timers/promises';
import type { Logger } from 'pino';
import { version } from '../base/package_root.ts';
import type { LLMEngine } from '../client/llm_engine.ts';
import { loadEngine } from '../client/load_engine.ts';
import type { Notice } from '../client/step_profile.ts';
import type { EngineConfig } from '../config/flags.ts';
import { checkAddress } from '../server/listen.ts';
import { readTls, tlsConfigOf } from '../server/tls.ts';
import { progressLine } from './bench/progress.ts';
import { parseEngineArgs } from './engine_args.ts';
import { loadProgress } from './load_progress.ts';
import { planLine } from './plan_text.ts';

const USAGE = [
  'Usage: tokenmill serve [model] [flags]',
  '',
  'Serves a model (a folder, a Hugging Face id, or the embedded one) on an OpenAI-compatible API.',
];
/** How long requests get to hear that the engine is dead before the process ends. */
const DEATH_GRACE_MS = 2000;

export async function serveCommand(args: readonly string[]): Promise<number> {
  const startMs = performance.now();
  const parsed = await parseEngineArgs(args, {
    usage: USAGE,
    own: {},
    heading: '',
    shown: ['model', 'device', 'cache', 'scheduler', 'sampling', 'chat', 'server', 'logging'],
    modelFirst: true,
    maxPositionals: 1,
  });
  if (parsed === null) return 0;
  const { config, notes } = parsed;
  const address = config.uds === null ? { host: config.host, port: config.port } : { uds: config.uds };
  // What keeps the server from starting is better told before a minute of loading than after it.
  await checkAddress(address);
  const tls = tlsConfigOf(config);
  if (tls !== null) readTls(tls);
  const line = progressLine(process.stderr);
  let noticeLog: Logger | null = null;
  const early: Notice[] = [];
  const onNotice = (notice: Notice): void => {
    if (noticeLog === null) early.push(notice);
    else noticeLog[notice.level](notice.text);
  };
  const loading = loadEngine(config, { ...loadProgress(line), onNotice }).finally(() => line.clear());
  loading.catch(() => {});
  // By then the engine's thread has been started, which loads the weights while the server's libraries are imported.
  await setImmediate();
  const serverModules = Promise.all([import('../server/index.ts'), import('pino')]);
  serverModules.catch(() => {});
  const llm = await loading;
  const [{ createServer, onTermination, openBindingWarning, serverConfigOf }, { pino }] = await serverModules;
  const log = pino({ level: config.logLevel, base: null, timestamp: pino.stdTimeFunctions.isoTime });
  noticeLog = log;
  for (const note of notes) log.warn(note);
  for (const notice of early) onNotice(notice);
  const server = await createServer(llm, serverConfigOf(config, { version: version(), logger: log }));
  const url = await server.listen(address);
  const warning = config.uds === null ? openBindingWarning(config.host, config.apiKey) : null;
  if (warning !== null) process.stderr.write(`\n${warning}\n`);
  process.stderr.write(welcome(llm, config, url, performance.now() - startMs));
  return new Promise((resolve) => {
    const shutdown = async (): Promise<void> => {
      await server.shutdown();
      await llm.close();
    };
    onTermination({ shutdown, exit: (code) => process.exit(code), log });
    void llm.died.then(async (error) => {
      log.fatal({ err: error }, 'the engine is dead; the process ends');
      await Promise.race([server.shutdown(), new Promise((done) => setTimeout(done, DEATH_GRACE_MS))]);
      resolve(error.exitCode);
      process.exit(error.exitCode);
    });
  });
}

function welcome(llm: LLMEngine, config: EngineConfig, url: string, startedMs: number): string {
  const { plan, timings } = llm;
  const name = plan.servedModelNames[0] ?? config.model;
  const curl = config.uds === null ? 'curl' : `curl --unix-socket ${config.uds}`;
  const base = config.uds === null ? url : 'http://localhost';
  const key = config.apiKey.length > 0 ? ` -H 'Authorization: Bearer KEY'` : '';
  const body = llm.hasChatTemplate
    ? { model: name, messages: [{ role: 'user', content: 'What is PagedAttention?' }] }
    : { model: name, prompt: 'Once upon a time', max_tokens: 32 };
  const route = llm.hasChatTemplate ? 'chat/completions' : 'completions';
  return `
Tokenmill ${version()} serves ${name} at ${url}
  ${planLine(plan)}
  ready after ${startedMs.toFixed(0)} ms (inspect ${timings.inspectMs.toFixed(0)}, ${timings.weightsMapped ? 'mapping weights' : 'weights'} ${timings.loadMs.toFixed(0)})

  ${curl} ${base}/v1/${route} -H 'Content-Type: application/json'${key} \\
    -d '${JSON.stringify(body)}'

  Docs: ${config.disableDocs ? 'off (--disable-docs)' : `${base}/docs`}   Plan: ${base}/plan   Metrics: ${base}/metrics   Stop: Ctrl-C

`;
}
