/**
 * A gateway hands its listening socket to another process of its kind: no connection is refused, because the socket is never closed.
 * The old process ends what it has and goes on reporting until then.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { statSync } from 'node:fs';
import { Server as NetServer } from 'node:net';
import type { Logger } from 'pino';
import { TokenmillError } from '../../base/errors.ts';
import type { Gateway } from './gateway.ts';
import type { GatewayStats, RoutingTable } from './routing_table.ts';

/** Successor to predecessor. */
type Upward =
  | { readonly kind: 'hello' }
  | { readonly kind: 'ready' }
  | { readonly kind: 'table'; readonly table: RoutingTable };
/** Predecessor to successor. */
type Downward =
  | { readonly kind: 'listener'; readonly table: RoutingTable | null; readonly stats: GatewayStats }
  | { readonly kind: 'stats'; readonly stats: GatewayStats };

/** From its start until it serves. */
const START_TIMEOUT_MS = 30_000;
const REPORT_MS = 250;

function failed(why: string): TokenmillError {
  return new TokenmillError('internal', `The successor did not take over: ${why}. This gateway goes on.`);
}

export interface HandoverOptions {
  readonly gateway: Gateway;
  readonly log: Logger;
  readonly script: string;
  readonly args: readonly string[];
}

/** Starts the successor and waits until it serves. @throws TokenmillError: it does not, and nothing has changed. */
export function startSuccessor({ gateway, log, script, args }: HandoverOptions): Promise<ChildProcess> {
  if (!statSync(script, { throwIfNoEntry: false })?.isFile()) {
    throw new TokenmillError('invalid_request', `The successor's file ${script} does not exist.`, { param: 'script' });
  }
  const child = fork(script, args, { detached: true, stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  return new Promise((resolve, reject) => {
    const giveUp = (why: string): void => {
      clearTimeout(timer);
      child.kill('SIGKILL');
      reject(failed(why));
    };
    const timer = setTimeout(() => giveUp(`it was not ready within ${START_TIMEOUT_MS} ms`), START_TIMEOUT_MS);
    child.once('error', (error) => giveUp(error.message));
    child.once('exit', (code) => giveUp(`it ended with code ${code}`));
    child.on('message', (message: Upward) => {
      if (message.kind === 'hello') {
        gateway.keys?.flush();
        const down: Downward = { kind: 'listener', table: gateway.index?.table ?? null, stats: gateway.stats() };
        child.send(down, gateway.listener);
      } else if (message.kind === 'ready') {
        clearTimeout(timer);
        child.removeAllListeners('exit');
        log.info({ pid: child.pid }, 'the successor serves');
        resolve(child);
      } else gateway.applyTable(message.table);
    });
  });
}

/** Reports to the successor until the work that is left is done, then lets go of it. True when all ended in time. */
export async function drainInto(
  child: ChildProcess,
  gateway: Gateway,
  timeoutMs: number,
  hasPredecessor: boolean,
): Promise<boolean> {
  const report = (): void => {
    const down: Downward = { kind: 'stats', stats: gateway.stats() };
    if (child.connected) child.send(down, () => {});
  };
  const timer = setInterval(report, REPORT_MS);
  const ended = await gateway.drain('serve', timeoutMs);
  // What a predecessor still has is reported through this process.
  if (hasPredecessor && process.connected) await new Promise((resolve) => process.once('disconnect', resolve));
  clearInterval(timer);
  report();
  await new Promise<void>((resolve) => {
    child.once('disconnect', () => resolve());
    if (child.connected) child.disconnect();
    else resolve();
  });
  child.unref();
  return ended;
}

/** In the successor: waits for the socket, serves, and says so. */
export function succeed(gateway: Gateway, beforeReady: () => Promise<void>): Promise<void> {
  const up = (message: Upward): void => {
    if (process.connected) process.send?.(message);
  };
  return new Promise((resolve, reject) => {
    process.on('message', (message: Downward, handle: unknown) => {
      gateway.setPredecessor(message.stats);
      if (message.kind === 'stats') return;
      if (!(handle instanceof NetServer)) {
        reject(failed('no socket came with the message'));
        return;
      }
      if (message.table !== null) gateway.applyTable(message.table);
      gateway.adopt(handle);
      beforeReady().then(() => {
        up({ kind: 'ready' });
        resolve();
      }, reject);
    });
    process.on('disconnect', () => gateway.predecessorGone());
    up({ kind: 'hello' });
  });
}

/** The predecessor may still hold requests, which wait for endpoints of the new table. */
export function forwardTable(table: RoutingTable): void {
  const up: Upward = { kind: 'table', table };
  if (process.connected) process.send?.(up);
}
