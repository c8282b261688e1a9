/** A supervisor whose replicas are fake: `node run_supervisor.mjs STATE_DIR [--take-over] [FLEET_FILE]`. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { Supervisor } from '../../dist/fleet/supervisor/supervisor.js';

const [stateDir, ...rest] = process.argv.slice(2);
const takeOver = rest.includes('--take-over');
const files = rest.filter((arg) => !arg.startsWith('--')).map((file) => ({ file, text: readFileSync(file, 'utf8') }));
const path = (name) => fileURLToPath(new URL(name, import.meta.url));
const supervisor = await Supervisor.start(
  {
    stateDir,
    entry: { file: process.execPath, args: [path('fake_tokenmill.mjs')] },
    log: pino({ level: 'info' }, pino.destination({ fd: 2, sync: true })),
    version: 'test',
    tickMs: 100,
    takeOver,
  },
  files,
);
process.on('SIGTERM', () => supervisor.end('down'));
await supervisor.done;
process.exit(0);
