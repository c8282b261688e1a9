/** Whole results, hostile files, and what must hold for any file. Cases by the dozen are in scenarios.test.ts. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TokenmillError } from '../../base/errors.ts';
import { describeFleetFile } from './describe.ts';
import { MODEL_MOUNT } from './kinds/template.ts';
import { KINDS, readFleet } from './read_fleet.ts';

const read = (text: string, file = 'f.yaml') => readFleet([{ file, text }]);

function problemsOf(...texts: readonly string[]): string[] {
  try {
    readFleet(texts.map((text, i) => ({ file: `f${i}.yaml`, text })));
  } catch (error) {
    if (error instanceof TokenmillError && error.code === 'invalid_manifest') return error.message.split('\n');
    throw error;
  }
  throw new Error('accepted');
}

const ISVC = `apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: llama
  namespace: team
  annotations: {serving.kserve.io/deploymentMode: Standard}
spec:
  predictor:
    maxReplicas: 3
    model:
      modelFormat: {name: huggingface}
      storageUri: hf://a/b
`;

describe('a service as a whole', () => {
  it('is what KServe makes of the object, with every default filled in', () => {
    const probe = { initialDelayMs: 0, successThreshold: 1 };
    expect(read(ISVC)).toEqual({
      services: [
        {
          id: 'team/llama',
          kind: 'InferenceService',
          at: { file: 'f.yaml', line: 1, column: 1 },
          models: ['llama'],
          template: {
            model: 'a/b',
            args: [],
            env: {},
            cpuMilli: null,
            memoryBytes: null,
            readiness: { ...probe, path: '/ready', periodMs: 1000, timeoutMs: 1000, failureThreshold: 2 },
            liveness: { ...probe, path: '/health', periodMs: 10_000, timeoutMs: 5000, failureThreshold: 10 },
            startup: { ...probe, path: '/ready', periodMs: 500, timeoutMs: 1000, failureThreshold: 3600 },
            terminationGraceMs: 30_000,
            preStopMs: 0,
            minReadyMs: 0,
          },
          canaries: [],
          canaryTrafficPercent: null,
          scaling: {
            minReplicas: 1,
            maxReplicas: 3,
            standby: 0,
            rule: {
              kind: 'hpa',
              // An empty object, not none: the limits of a `behavior` hold.
              behavior: {},
              metrics: [
                {
                  query: { kind: 'resource', resource: 'cpu', target: 80, utilization: true },
                  metricType: 'Utilization',
                  target: 80,
                },
              ],
            },
          },
          rollout: {
            strategy: 'rolling',
            maxSurge: { percent: 25 },
            maxUnavailable: { percent: 25 },
            steps: [],
            analysis: null,
            progressDeadlineMs: 600_000,
            revisionHistoryLimit: 10,
          },
          traffic: {
            pins: [],
            stickyBy: null,
            shadow: null,
            queue: { maxRequests: 10_000, maxBytes: 268_435_456, ttlMs: 60_000, coldTtlMs: 300_000 },
            fallbacks: [],
            priority: 0,
            hedgeAfterMs: 0,
            idleTimeoutMs: 300_000,
          },
          stopped: false,
          labels: {
            app: 'isvc.llama-predictor',
            'serving.kserve.io/inferenceservice': 'llama',
            component: 'predictor',
          },
        },
      ],
      routes: [],
      graphs: [],
      gateway: { host: '127.0.0.1', port: 8080, externals: [], scorers: {}, objectives: {}, requireKey: false },
      notices: [],
    });
  });

  it('takes a folder within the model, and the last word of a runtime and a service', () => {
    const withArgs = (args: string) =>
      read(ISVC.replace('storageUri: hf://a/b', `storageUri: file:///m\n      args: [${args}]`));
    expect(withArgs(`--model_dir=${MODEL_MOUNT}/sub, --model_name, other`).services[0]).toMatchObject({
      models: ['other'],
      template: { model: '/m/sub', args: [] },
    });
    expect(() => withArgs(`--model_dir=${MODEL_MOUNT}/../x`)).toThrow('leaves the model');
  });

  it('finds relative folders beside the file', () => {
    const [service] = read('models: [{name: a, model: ./m}]', 'fleets/one/f.yaml').services;
    expect(service?.template.model).toBe('./fleets/one/m');
    expect(read('models: [{name: a, model: ../m}]', '/x/fleets/f.yaml').services[0]?.template.model).toBe('/x/m');
    expect(read('models: [{name: a, model: owner/m}]', 'fleets/f.yaml').services[0]?.template.model).toBe('owner/m');
  });

  it('may be spread over files, and problems name the file', () => {
    const files = ['models: [{name: a}]', 'models: [{name: b, traffic: {fallbacks: [a]}}]'];
    const spec = readFleet(files.map((text, i) => ({ file: `f${i}.yaml`, text })));
    expect(spec.services.map(({ id }) => id)).toEqual(['default/a', 'default/b']);
    expect(
      problemsOf('models: [{name: a, x: 1}]', 'models: [{name: b, y: 1}]').map((line) => line.split(' ')[0]),
    ).toEqual(['f0.yaml:1:20', 'f1.yaml:1:20']);
  });
});

describe('hostile files', () => {
  it('aliases that grow without end', () => {
    const levels = Array.from(
      { length: 12 },
      (_, i) => `x${i + 1}: &x${i + 1} [${Array(10).fill(`*x${i}`).join(', ')}]`,
    );
    expect(problemsOf(['x0: &x0 [a]', ...levels].join('\n'))).toEqual([
      expect.stringMatching(/^f0\.yaml:\d+:\d+ more than 100000 values after aliases are written out$/),
    ]);
  });

  it.each([
    ['flow', '['.repeat(20_000)],
    ['flow that is closed', `a: ${'['.repeat(300)}${']'.repeat(300)}`],
    ['blocks', `${'- '.repeat(3000)}x`],
    ['maps', '{a: '.repeat(5000)],
    ['indentation', Array.from({ length: 400 }, (_, i) => `${' '.repeat(i)}a:`).join('\n')],
  ])('nested too deep: %s', (_name, text) => {
    expect(problemsOf(text)[0]).toMatch(/^f0\.yaml:\d+:\d+ (nested deeper than 64 levels|not YAML)/);
  });

  it('__proto__ is a key like any other', () => {
    expect(problemsOf('models: [{name: a, __proto__: {polluted: 1}}]')).toEqual([
      expect.stringContaining('models[0].__proto__: unknown field'),
    ]);
    expect(problemsOf('__proto__: {models: [{name: a}]}')[0]).toContain('__proto__: unknown field');
    const [service] = read('models: [{name: a, labels: {__proto__: x, constructor: y}, env: {__proto__: z}}]').services;
    expect(Object.keys(service?.labels ?? {})).toEqual(['__proto__', 'constructor']);
    expect(Object.keys(service?.template.env ?? {})).toEqual(['__proto__']);
    expect(({} as { polluted?: unknown }).polluted).toBeUndefined();
  });

  it.each(['constructor', 'toString', 'hasOwnProperty', 'valueOf'])('%s is no known field, kind or flag', (name) => {
    expect(problemsOf(`models: [{name: a, ${name}: 1}]`)[0]).toContain('unknown field');
    expect(problemsOf(`apiVersion: v1\nkind: ${name}\nmetadata: {name: a}`)[0]).toContain('is not known here');
    expect(problemsOf(ISVC.replace('hf://a/b', `${name}://a`))[0]).toMatch(/unknown scheme|no URI/);
  });

  it.each([
    ['zero bytes', 'models: [{name: "a\0"}]', '1:19'],
    ['bytes that were no UTF-8', 'x\nmodels: \ufffd', '2:9'],
    ['more than a MiB', `# ${'x'.repeat(1 << 20)}`, '1:1'],
    ['many documents', '---\na: 1\n'.repeat(1001), '1:1'],
    ['more signs than a person writes', `[${','.repeat(500_000)}`, '1:100000'],
    ['a tag', 'models: !!js/function "x"', '1:9'],
    ['a list as key', '? [a]\n: b', '1:3'],
    ['an empty key', ': b', '1:1'],
  ])('%s', (_name, text, at) => {
    expect(problemsOf(text)[0]?.split(' ')[0]).toBe(`f0.yaml:${at}`);
  });

  it('tells 50 problems and counts the others', () => {
    const lines = problemsOf(`models:\n${'  - {name: a-, x: 1}\n'.repeat(100)}`);
    expect(lines).toHaveLength(51);
    expect(lines.at(-1)).toMatch(/^and \d+ more$/);
  });

  it('names and values as long as the file are cut, and unknown fields do not fill the answer', () => {
    const [line = ''] = problemsOf(
      `models: [{name: a, ${'x'.repeat(500_000)}: 1, model: "s3://${'y'.repeat(60_000)}"}]`,
    );
    expect(line.length).toBeLessThan(1100);
    const many = Array.from({ length: 3000 }, (_, i) => `field${i}: 1`).join(', ');
    expect(problemsOf(`models: [{name: a, ${many}}]`)).toHaveLength(50);
  });

  it('notices are counted', () => {
    const list = Array.from(
      { length: 1500 },
      (_, i) => `  - {apiVersion: v1, kind: Namespace, metadata: {name: n${i}}}`,
    );
    const { notices } = read(`kind: List\napiVersion: v1\nitems:\n${list.join('\n')}\n---\nmodels: [{name: a}]`);
    expect(notices).toHaveLength(1000);
    expect(notices.at(-1)?.text).toBe('and others; 1000 notices are kept');
  });

  it('a long chain of nodes', () => {
    const nodes = Array.from(
      { length: 1000 },
      (_, i) => `    n${i}: {routerType: Sequence, steps: [{nodeName: n${i + 1}}]}`,
    );
    const graph = `apiVersion: serving.kserve.io/v1alpha1\nkind: InferenceGraph\nmetadata: {name: g}\nspec:\n  nodes:\n${nodes.join('\n')}\n`;
    expect(problemsOf(`${graph}---\nmodels: [{name: a}]`)).toContainEqual(expect.stringContaining('has 1000 nodes'));
  });

  it('brackets in texts are no nesting', () => {
    const env = Array.from(
      { length: 100 },
      (_, i) => `      K${i}: ${['"["', '|-\n        [', "'{'", 'a[b'][i % 4]}`,
    ).join('\n');
    expect(read(`models:\n  - name: a\n    env:\n${env}\n`).services[0]?.template.env).toMatchObject({
      K0: '[',
      K1: '[',
      K2: '{',
      K3: 'a[b',
    });
  });

  it('a wide object takes no time that grows with its square', () => {
    const labels = Array.from({ length: 10_000 }, (_, i) => `      k${i}: v`).join('\n');
    expect(Object.keys(read(`models:\n  - name: a\n    labels:\n${labels}`).services[0]?.labels ?? {})).toHaveLength(
      10_000,
    );
  });
});

const GOOD = `${ISVC}---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: s}
spec:
  scaleTargetRef: {name: b}
  triggers: [{type: prometheus, metadata: {query: up, threshold: "5"}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  rules:
    - matches: [{path: {value: /x}, headers: [{name: a, value: b}]}]
      backendRefs: [{name: b, weight: 2}, {name: a}]
---
models:
  - name: a
    args: [--seed, 5]
    replicas: {min: 0, max: 4}
    scaling: {ttftP95Ms: 500, idle: 5m}
    canaries: [{name: c, percent: 5}]
    traffic: {pins: [{header: x, value: y, to: c}], fallbacks: [b]}
  - {name: b, cpu: 500m, memory: 2Gi, env: &e {A: b}}
gateway: {port: 9000}
`;

/** Pieces that a person, or a broken tool, leaves behind. */
const PIECES = [
  '',
  ' ',
  '\n',
  ':',
  '- ',
  '[',
  ']',
  '{',
  '}',
  '"',
  "'",
  '*e',
  '&e ',
  '<<: *e',
  '!x ',
  '? ',
  '---\n',
  '# ',
  '|',
  '>',
  '0x',
  '-1',
  'null',
  '~',
  '1e999',
  'true',
  '\t',
  '__proto__',
  '\u2028',
  '%',
];

describe('the reference', () => {
  const text = describeFleetFile();

  it('has a first example that is read', () => {
    const example = /```yaml\n([\s\S]*?)```/.exec(text)?.[1] ?? '';
    expect(read(example).services.map(({ id }) => id)).toEqual(['default/llama', 'default/small']);
  });

  it('says of every kind what it is here', () => {
    expect(text).not.toMatch(/\| {2}\|$/m);
    for (const { kind } of KINDS) expect(text).toContain(`### ${kind}\n`);
  });

  it('says of every field of the short form what it means', () => {
    const silent = text.split('## Kinds')[0]?.match(/^\| `\w+`.*\|\s*\|$/gm);
    expect(silent).toBeNull();
  });
});

const RUNS = Number(process.env['RUNS'] ?? 500);

describe('any file', () => {
  it('good as it stands', () => {
    expect(read(GOOD).services).toHaveLength(3);
  });

  it('gives a fleet, or problems with their places', () => {
    const edit = fc.record({
      at: fc.nat({ max: GOOD.length }),
      cut: fc.nat({ max: 40 }),
      put: fc.oneof(fc.constantFrom(...PIECES), fc.string({ maxLength: 8 })),
    });
    fc.assert(
      fc.property(fc.array(edit, { minLength: 1, maxLength: 3 }), (edits) => {
        const text = edits.reduce(
          (before, { at, cut, put }) => before.slice(0, at) + put + before.slice(at + cut),
          GOOD,
        );
        try {
          const { services } = read(text);
          expect(services.every(({ id, models }) => id.includes('/') && models.length > 0)).toBe(true);
          expect(JSON.parse(JSON.stringify(services))).toEqual(services.map((service) => ({ ...service })));
        } catch (error) {
          if (!(error instanceof TokenmillError)) throw error;
          expect(error.code).toBe('invalid_manifest');
          expect(error.message).toMatch(/^f\.yaml:\d+:\d+ /);
        }
      }),
      { numRuns: RUNS / 2, seed: 5 },
    );
  }, 60_000);

  const samples = ['accepted', 'refused'].flatMap((name) =>
    readFileSync(new URL(`testdata/${name}.txt`, import.meta.url), 'utf8')
      .split(/^@@ .*\n/m)
      .slice(1)
      .map((part) => part.slice(0, part.search(/^=>$/m))),
  );
  const values = fc.constantFrom(
    ...[
      '5',
      '-1',
      '0',
      '1.5',
      'true',
      'text',
      '"5"',
      '""',
      '[]',
      '{}',
      '[1, [2]]',
      '[{}]',
      '[null]',
      '{a: {b: c}}',
      '{a: null}',
      'null',
    ],
    ...[
      '.inf',
      '.nan',
      '1e400',
      '99999999999999999999',
      '0777',
      '2026-01-01',
      '"\\0"',
      '"{{.X}}"',
      '"$(X)"',
      '"../.."',
      '"("',
    ],
  );

  it('with values of any kind anywhere', () => {
    const place = fc.constantFrom(...samples).chain((text) => {
      const found = [...text.matchAll(/: ("[^"\n]*"|[\w./%:-]+|\[[^[\]\n]*\]|\{[^{}\n]*\})(?=[,}\n])/g)];
      const places = found.map((match) => ({ at: match.index + 2, length: (match[1] as string).length }));
      return fc.record({
        text: fc.constant(text),
        place: fc.constantFrom(...(places.length > 0 ? places : [{ at: 0, length: 0 }])),
      });
    });
    fc.assert(
      fc.property(place, values, ({ text, place: { at, length } }, value) => {
        try {
          read(text.slice(0, at) + value + text.slice(at + length));
        } catch (error) {
          if (!(error instanceof TokenmillError)) throw error;
          expect(error.code).toBe('invalid_manifest');
          expect(error.message).toMatch(/^f\.yaml:\d+:\d+ /);
        }
      }),
      { numRuns: RUNS, seed: 6 },
    );
  }, 60_000);
});
