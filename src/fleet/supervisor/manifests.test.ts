import { expect, test } from 'vitest';
import { readFleet } from '../spec/read_fleet.ts';
import { filesOf, mergeManifests, splitFile, withoutObject } from './manifests.ts';

const SERVICE = (name: string, minReplicas: number) => `apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: ${name}, annotations: {serving.kserve.io/deploymentMode: Standard}}
spec:
  predictor:
    minReplicas: ${minReplicas}
    maxReplicas: 3
    model: {modelFormat: {name: huggingface}, storageUri: file:///models/x}
`;
const SHORT = `# two models
models:
  - name: a
    replicas: 1
  - name: b   # kept
    replicas: 2
gateway: {port: 9000}
`;

const ids = (files: Parameters<typeof mergeManifests>[0]) => readFleet(filesOf(files)).services.map(({ id }) => id);

test('a file is taken apart by its objects, which keep their places', () => {
  const file = { file: '/f.yaml', text: `# first\n${SERVICE('x', 1)}---\n${SERVICE('y', 1)}---\n\n---\n${SHORT}` };
  const parts = splitFile(file);
  expect(parts.map(({ key }) => key)).toEqual([
    'serving.kserve.io InferenceService default/x',
    'serving.kserve.io InferenceService default/y',
    '/f.yaml#3',
  ]);
  const whole = readFleet([file]).services.map(({ id, at }) => [id, at]);
  expect(readFleet(filesOf(parts)).services.map(({ id, at }) => [id, at])).toEqual(whole);
});

test('applied again an object takes the place of the one before, whatever file it comes from', () => {
  const first = mergeManifests([], [{ file: '/a.yaml', text: `${SERVICE('x', 1)}---\n${SERVICE('y', 1)}` }]);
  const second = mergeManifests(first, [{ file: '/b.yaml', text: SERVICE('x', 2) }]);
  expect(ids(second).sort()).toEqual(['default/x', 'default/y']);
  const x = readFleet(filesOf(second)).services.find(({ id }) => id === 'default/x');
  expect([x?.scaling.minReplicas, x?.at.file]).toEqual([2, '/b.yaml']);
  // The same file again, without one of its objects: that one is gone.
  const third = mergeManifests(second, [{ file: '/a.yaml', text: SERVICE('z', 1) }]);
  expect(ids(third).sort()).toEqual(['default/x', 'default/z']);
});

test('one object is taken out: a document, or an entry of the short form', () => {
  const all = mergeManifests([], [{ file: '/a.yaml', text: `${SERVICE('x', 1)}---\n${SHORT}` }]);
  const { services } = readFleet(filesOf(all));
  const at = (id: string) => services.find((service) => service.id === id)?.at ?? { file: '', line: 0, column: 0 };
  expect(ids(withoutObject(all, at('default/x')) ?? [])).toEqual(['default/a', 'default/b']);
  const withoutA = withoutObject(all, at('default/a')) ?? [];
  expect(ids(withoutA).sort()).toEqual(['default/b', 'default/x']);
  expect(readFleet(filesOf(withoutA)).gateway.port).toBe(9000);
  expect(ids(withoutObject(all, at('default/b')) ?? []).sort()).toEqual(['default/a', 'default/x']);
  expect(withoutObject(all, { file: '/other.yaml', line: 1, column: 1 })).toBeNull();
});

test('what cannot be read stays in, for the reader to refuse; too much is refused here', () => {
  const broken = splitFile({ file: '/f.yaml', text: 'models: [\n' });
  expect(() => readFleet(filesOf(broken))).toThrow(/\/f\.yaml:/);
  expect(() => splitFile({ file: '/f.yaml', text: 'x: 1\n---\n'.repeat(2001) })).toThrow(/more than 2000 documents/);
  expect(() => splitFile({ file: '/f.yaml', text: '#'.repeat(5 << 20) })).toThrow(/larger than 4 MiB/);
});
