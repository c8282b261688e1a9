/** The gateway's process: started in a session of its own, asked over its control socket, replaced without a refused connection. */
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Logger } from 'pino';
import { assert } from '../../base/assert.ts';
import { TokenmillError } from '../../base/errors.ts';
import type { FleetEvent } from '../control/fleet_state.ts';
import { restartAt } from '../control/restart.ts';
import type { GatewayStats, RoutingTable } from '../gateway/routing_table.ts';
import type { GatewaySpec } from '../spec/fleet_spec.ts';
import type { GatewayLink } from './fleet.ts';
import { type Answer, ask } from './http_client.ts';
import { logPath } from './machine_host.ts';
import {
  FLEET_VARIABLE,
  findMembers,
  identify,
  isAlive,
  MEMBER_VARIABLE,
  type ProcessIdentity,
  signalProcess,
} from './process_identity.ts';
import { freePort, spawnDetached } from './replica_process.ts';
import { tailLog } from './rotated_log.ts';
import type { GatewayRecord, StateStore } from './state_store.ts';

/** Name of its log and of its mark. */
const MEMBER = 'gateway';
const ASK_TIMEOUT_MS = 1000;
const MAX_STATS_BYTES = 16 << 20;
/** Of `sun_path` on all systems, less what the gateway adds to the name. */
const MAX_SOCKET_BYTES = 94;
/** Until a successor serves. */
const HANDOVER_TIMEOUT_MS = 35_000;
const DRAIN_POLL_MS = 50;

export interface GatewayProcessOptions {
  readonly store: StateStore;
  readonly stateDir: string;
  /** File of the gateway's process. */
  readonly script: string;
  readonly log: Logger;
  readonly wake: () => void;
}

export class GatewayProcess implements GatewayLink {
  private readonly options: GatewayProcessOptions;
  private record: GatewayRecord | null;
  private startedAt = 0;
  private failures = 0;
  private restartsAt = 0;
  private isListening = false;
  private lastFailure: string | null = null;
  private isEnding = false;

  constructor(options: GatewayProcessOptions) {
    this.options = options;
    this.record = options.store.gateway();
    const marked = findMembers(options.stateDir).get(MEMBER);
    // Recorded before it was started, or not at all: the mark tells.
    if (marked !== undefined && this.record !== null && !isAlive(this.record.process))
      this.put({ ...this.record, process: marked });
  }

  /** Null while none answers. */
  url(): string | null {
    return this.isListening ? this.address() : null;
  }

  /** Why it has ended the last time, while it is not back. */
  problem(): string | null {
    return this.isListening ? null : this.lastFailure;
  }

  private address(): string {
    const { host, port } = this.record as GatewayRecord;
    const shown = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host;
    return `http://${shown.includes(':') ? `[${shown}]` : shown}:${port}`;
  }

  async tend(spec: GatewaySpec, now: number): Promise<FleetEvent[]> {
    if (this.isEnding) return [];
    const isRunning = this.record !== null && isAlive(this.record.process);
    if (isRunning && this.record?.host === spec.host && this.record.askedPort === spec.port) return [];
    if (isRunning) return this.replace(spec, now);
    const events = this.record === null || this.startedAt === 0 ? [] : this.noteEnd(now);
    if (this.record !== null) this.put(null);
    if (now >= this.restartsAt) await this.start(spec, now);
    return events;
  }

  async stats(): Promise<GatewayStats | null> {
    const answer = await this.ask('GET', '/stats');
    if (answer?.status !== 200) return null;
    // The control socket is there before the port is.
    this.isListening ||=
      (await ask({ method: 'GET', url: `${this.address()}/health`, timeoutMs: ASK_TIMEOUT_MS, maxBytes: 1 << 16 })) !==
      null;
    return JSON.parse(answer.text) as GatewayStats;
  }

  async publish(table: RoutingTable): Promise<boolean> {
    const answer = await this.ask('PUT', '/table', table);
    if (answer !== null && answer.status >= 300) {
      this.options.log.error(
        { status: answer.status, answer: answer.text.slice(0, 500) },
        'the gateway refused the table',
      );
    }
    return answer !== null && answer.status < 300;
  }

  /** A successor of this version takes the socket over; no connection is refused. Throws what the gateway says. */
  async renew(): Promise<void> {
    const { script } = this.options;
    const answer = await this.ask('POST', '/handover', { script }, HANDOVER_TIMEOUT_MS);
    const pid = answer?.status === 200 ? (JSON.parse(answer.text) as { pid: number }).pid : null;
    const successor = pid === null ? null : identify(pid);
    if (successor === null || this.record === null) {
      throw new TokenmillError(
        'internal',
        `The gateway was not replaced: ${answer?.text.slice(0, 300) ?? 'no answer'}`,
      );
    }
    this.put({ ...this.record, process: successor });
  }

  /** Takes nothing new; resolves when what runs has ended, or after `timeoutMs`. */
  async drain(timeoutMs: number): Promise<void> {
    this.isEnding = true;
    if (this.record === null) return;
    await this.ask('POST', '/drain', { timeoutMs });
    const { process } = this.record;
    for (let waited = 0; isAlive(process) && waited < timeoutMs; waited += DRAIN_POLL_MS) await sleep(DRAIN_POLL_MS);
  }

  stop(): void {
    this.isEnding = true;
    if (this.record !== null) {
      signalProcess(this.record.process, 'SIGKILL');
      rmSync(this.record.socket, { force: true });
    }
    this.put(null);
  }

  private socketPath(port: number): string {
    const path = join(this.options.stateDir, `gateway-${port}.sock`);
    if (Buffer.byteLength(path) <= MAX_SOCKET_BYTES) return path;
    throw new TokenmillError('flag_invalid', `The path of the state folder is too long for a socket: ${path}.`, {
      param: '--state-dir',
      remedy: 'Choose a shorter --state-dir.',
    });
  }

  private async start({ host, port: askedPort }: GatewaySpec, now: number): Promise<void> {
    const { stateDir, script, wake } = this.options;
    const port = askedPort === 0 ? await freePort() : askedPort;
    const socket = this.socketPath(port);
    const files = ['--control', socket, '--table', join(stateDir, 'table.json'), '--keys', join(stateDir, 'keys.db')];
    const command = [process.execPath, script, ...files, '--host', host, '--port', String(port)];
    const env = { ...process.env, [FLEET_VARIABLE]: stateDir, [MEMBER_VARIABLE]: MEMBER };
    this.startedAt = now;
    this.isListening = false;
    const started = spawnDetached(command, env, logPath(stateDir, MEMBER));
    if (started === null) return;
    this.put({ process: started.process, socket, host, port, askedPort });
    void started.ended.then(wake);
  }

  private noteEnd(now: number): FleetEvent[] {
    const wait = restartAt({ startedAt: this.startedAt, endedAt: now, failures: this.failures });
    this.failures = wait.failures;
    this.restartsAt = wait.at;
    this.isListening = false;
    const last = tailLog(logPath(this.options.stateDir, MEMBER), 1).text.trim();
    this.lastFailure = `the gateway has ended${last === '' ? '' : `: ${last.slice(0, 300)}`}`;
    return [{ at: now, service: '', type: 'GatewayFailed', text: this.lastFailure }];
  }

  /** On another address: the new one listens beside the old, which finishes what it has. */
  private async replace(spec: GatewaySpec, now: number): Promise<FleetEvent[]> {
    const old = this.record?.process as ProcessIdentity;
    signalProcess(old, 'SIGTERM');
    await this.start(spec, now);
    return [
      { at: now, service: '', type: 'GatewayMoved', text: `the gateway listens on ${spec.host}:${this.record?.port}` },
    ];
  }

  private put(record: GatewayRecord | null): void {
    this.record = record;
    this.options.store.putGateway(record);
  }

  private async ask(
    method: 'GET' | 'PUT' | 'POST',
    path: string,
    body?: unknown,
    timeoutMs = ASK_TIMEOUT_MS,
  ): Promise<Answer | null> {
    if (this.record === null) return null;
    const common = { method, url: path, socketPath: this.record.socket, timeoutMs, maxBytes: MAX_STATS_BYTES };
    return ask(body === undefined ? common : { ...common, body });
  }
}

/** Beside this file's folder in dist/, beside this very file in a bundle. */
export function gatewayScript(): string {
  const places = ['../gateway/gateway_main.js', './gateway_main.js'].map((path) =>
    fileURLToPath(new URL(path, import.meta.url)),
  );
  const found = places.find((path) => existsSync(path));
  assert(found !== undefined, `the gateway's file is at none of ${places.join(', ')}`);
  return found;
}
