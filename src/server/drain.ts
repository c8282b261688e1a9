/** From SIGTERM to the end: refuse new work, let the running finish until the deadline, end the rest with an error. */
import type { Logger } from 'pino';
import type { ActiveRequests } from './active.ts';

/** How long aborted requests get to write their error before the sockets are closed. */
const ABORT_GRACE_MS = 1000;

function within(promise: Promise<void>, ms: number): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), ms);
    void promise.then(() => {
      clearTimeout(timer);
      resolve(true);
    });
  });
}

/** True when every request finished by itself. New requests get 503 from the first moment on. */
export async function drain(active: ActiveRequests, timeoutS: number, log: Logger): Promise<boolean> {
  active.beginDrain();
  log.info({ inFlight: active.size, timeoutS }, 'draining: new requests get 503');
  if (await within(active.whenIdle(), timeoutS * 1000)) return true;
  log.warn({ inFlight: active.size }, 'drain deadline reached: ending what still runs');
  active.abortAll();
  await within(active.whenIdle(), ABORT_GRACE_MS);
  return false;
}

export interface ShutdownOptions {
  /** Drains and closes everything; called once. */
  readonly shutdown: () => Promise<void>;
  readonly exit: (code: number) => void;
  readonly log: Logger;
  readonly signals?: NodeJS.EventEmitter;
}

/** SIGTERM and SIGINT shut down gracefully; a second signal ends the process at once. Returns the removal function. */
export function onTermination({ shutdown, exit, log, signals = process }: ShutdownOptions): () => void {
  let stopping = false;
  const handler = (signal: NodeJS.Signals): void => {
    if (stopping) {
      log.warn({ signal }, 'second signal: ending at once');
      exit(signal === 'SIGINT' ? 130 : 143);
      return;
    }
    stopping = true;
    log.info({ signal }, 'shutting down; a second signal ends at once');
    shutdown().then(
      () => exit(0),
      (error: unknown) => {
        log.error({ err: error }, 'shutdown failed');
        exit(1);
      },
    );
  };
  signals.on('SIGTERM', handler);
  signals.on('SIGINT', handler);
  return () => {
    signals.off('SIGTERM', handler);
    signals.off('SIGINT', handler);
  };
}
