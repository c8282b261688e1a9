/** The process of the gateway: a public port, a control socket, the last table in a file. */
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { type Logger, pino } from 'pino';
import { z } from 'zod';
import { systemClock } from '../../base/clock.ts';
import { TokenmillError } from '../../base/errors.ts';
import { ControlApi } from './control_api.ts';
import { Gateway } from './gateway.ts';
import { drainInto, forwardTable, startSuccessor, succeed } from './handover.ts';
import { SqliteKeyStore } from './keys/key_store.ts';
import { Keys, type Price } from './keys/keys.ts';
import type { RoutingTable } from './routing_table.ts';
import { parseTable } from './table_schema.ts';

const USAGE = `Usage: gateway_main --control SOCKET --table FILE [--keys FILE] [--prices FILE] [--master-key-env NAME]
  [--host HOST] [--port PORT] [--keep-alive-ms N] [--drain-ms N] [--log-level LEVEL]`;

const OPTIONS = {
  control: { type: 'string' },
  table: { type: 'string' },
  keys: { type: 'string' },
  prices: { type: 'string' },
  'master-key-env': { type: 'string', default: 'TOKENMILL_MASTER_KEY' },
  host: { type: 'string' },
  port: { type: 'string' },
  'keep-alive-ms': { type: 'string', default: '0' },
  'drain-ms': { type: 'string', default: '600000' },
  'log-level': { type: 'string', default: 'info' },
  /** Given by a predecessor, with which there is a channel. */
  successor: { type: 'boolean', default: false },
} as const;

interface Settings {
  readonly control: string;
  readonly table: string;
  readonly keys: string | null;
  readonly prices: string | null;
  readonly masterKeyEnv: string;
  readonly host: string | null;
  readonly port: number | null;
  readonly keepAliveMs: number;
  readonly drainMs: number;
  readonly logLevel: string;
  readonly successor: boolean;
}

function wrong(message: string): TokenmillError {
  return new TokenmillError('flag_invalid', message, { remedy: USAGE });
}

function count(name: string, text: string, max: number): number {
  const value = /^\d{1,12}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value <= max)) throw wrong(`--${name} is no whole number of at most ${max}.`);
  return value;
}

function settingsOf(args: readonly string[]): Settings {
  let values: ReturnType<typeof parseArgs<{ options: typeof OPTIONS }>>['values'];
  try {
    ({ values } = parseArgs({ args: [...args], options: OPTIONS }));
  } catch (error) {
    throw wrong(`${(error as Error).message}.`);
  }
  if (values.control === undefined || values.table === undefined) throw wrong('--control and --table are needed.');
  return {
    control: values.control,
    table: values.table,
    keys: values.keys ?? null,
    prices: values.prices ?? null,
    masterKeyEnv: values['master-key-env'],
    host: values.host ?? null,
    port: values.port === undefined ? null : count('port', values.port, 65_535),
    keepAliveMs: count('keep-alive-ms', values['keep-alive-ms'], 3_600_000),
    drainMs: count('drain-ms', values['drain-ms'], 86_400_000),
    logLevel: values['log-level'],
    successor: values.successor,
  };
}

/** The last table, or null when there is none. A broken one is told and left out. */
function readTable(path: string, log: Logger): RoutingTable | null {
  try {
    return parseTable(readFileSync(path, 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
      log.error({ err: error, path }, 'the kept table cannot be used');
    return null;
  }
}

/** Whole or not at all, also when the machine stops in between. */
function writeTable(path: string, table: RoutingTable): void {
  const temporary = `${path}.${process.pid}.tmp`;
  const file = openSync(temporary, 'w', 0o600);
  try {
    writeSync(file, JSON.stringify(table));
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(temporary, path);
}

const pricesSchema = z.record(
  z.string(),
  z.strictObject({ promptPerMillion: z.number().min(0), outputPerMillion: z.number().min(0) }),
);

function readPrices(path: string | null): ReadonlyMap<string, Price> {
  if (path === null) return new Map();
  try {
    return new Map(Object.entries(pricesSchema.parse(JSON.parse(readFileSync(path, 'utf8')))));
  } catch (error) {
    throw wrong(`The prices in ${path} cannot be read: ${(error as Error).message}`);
  }
}

function openKeys(settings: Settings, log: Logger): Keys | null {
  if (settings.keys === null) return null;
  const masterKey = process.env[settings.masterKeyEnv] ?? null;
  if (masterKey === null) log.warn({ variable: settings.masterKeyEnv }, 'no master key is set: keys cannot be managed');
  return new Keys({
    store: new SqliteKeyStore(settings.keys),
    masterKey: masterKey === '' ? null : masterKey,
    prices: readPrices(settings.prices),
    now: () => systemClock.now(),
    onWriteError: (error) =>
      log.error({ err: error }, 'usage of keys could not be written; it is kept for the next time'),
  });
}

class GatewayProcess {
  private readonly settings: Settings;
  private readonly args: readonly string[];
  private readonly log: Logger;
  private readonly gateway: Gateway;
  private readonly control: ControlApi;
  private leaving = false;

  constructor(args: readonly string[]) {
    this.settings = settingsOf(args);
    this.args = args.filter((arg) => arg !== '--successor');
    const { logLevel, keepAliveMs } = this.settings;
    this.log = pino({ level: logLevel, base: { pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime });
    this.gateway = new Gateway({
      log: this.log,
      keys: openKeys(this.settings, this.log),
      env: process.env,
      keepAliveMs,
    });
    this.control = new ControlApi({
      stats: () => this.gateway.stats(),
      applyTable: (table) => this.applyTable(table),
      drain: (timeoutMs) => void this.leave(timeoutMs ?? this.settings.drainMs),
      handover: (script) => this.handover(script ?? fileURLToPath(import.meta.url)),
    });
  }

  async start(): Promise<void> {
    const { successor, control } = this.settings;
    process.on('SIGTERM', () => void this.leave(this.settings.drainMs));
    process.on('SIGINT', () => void this.leave(this.settings.drainMs));
    if (successor) {
      await succeed(this.gateway, () => this.control.listen(control, true));
    } else {
      const table = readTable(this.settings.table, this.log);
      if (table !== null) this.gateway.applyTable(table);
      await this.control.listen(control, false);
      const host = this.settings.host ?? table?.gateway.host ?? '127.0.0.1';
      await this.gateway.listen(host, this.settings.port ?? table?.gateway.port ?? 0);
    }
    const { port } = this.gateway;
    this.log.info({ port, control, tableVersion: this.gateway.stats().tableVersion }, 'the gateway serves');
  }

  private applyTable(table: RoutingTable): void {
    this.gateway.applyTable(table);
    const { port } = this.gateway;
    if (this.settings.port === null && table.gateway.port !== 0 && table.gateway.port !== port) {
      this.log.warn({ port, asked: table.gateway.port }, 'the port changes only with a restart of the gateway');
    }
    try {
      writeTable(this.settings.table, table);
    } catch (error) {
      this.log.error(
        { err: error, path: this.settings.table },
        'the table is in use and could not be kept for a restart',
      );
    }
    if (this.settings.successor) forwardTable(table);
  }

  /** The successor's pid. */
  private async handover(script: string): Promise<number> {
    if (this.leaving) throw new TokenmillError('overloaded', 'The gateway is already leaving.');
    this.leaving = true;
    const { gateway, log, args } = this;
    try {
      const child = await startSuccessor({ gateway, log, script, args: [...args, '--successor'] });
      this.control.close();
      void drainInto(child, gateway, this.settings.drainMs, this.settings.successor).then((ended) => this.end(ended));
      return child.pid as number;
    } catch (error) {
      this.leaving = false;
      throw error;
    }
  }

  private async leave(timeoutMs: number): Promise<void> {
    if (this.leaving) return;
    this.leaving = true;
    this.log.info({ timeoutMs }, 'draining: new requests get 503');
    this.control.close();
    await this.end(await this.gateway.drain('refuse', timeoutMs));
  }

  private async end(ended: boolean): Promise<void> {
    this.log.info({ ended }, 'the gateway ends');
    await this.gateway.close();
    process.exit(0);
  }
}

/** Not awaited at the top of the file, which a bundle for require() cannot hold. */
async function main(): Promise<void> {
  await new GatewayProcess(process.argv.slice(2)).start();
}

main().catch((error: unknown) => {
  const known = error instanceof TokenmillError;
  process.stderr.write(`${known ? error.message : (error as Error).stack}\n`);
  process.exit(known ? error.exitCode : 1);
});
