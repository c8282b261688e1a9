import { expect, it } from 'vitest';
import { placeOf, placeOfNative } from './storage.ts';

const claims = new Map([
  ['default/store', '/srv/models'],
  ['default/empty', null],
]);

it.each([
  ['hf://owner/model', { model: 'owner/model', args: [] }],
  ['hf://owner/model.v1:refs/pr/1', { model: 'owner/model.v1', args: ['--revision', 'refs/pr/1'] }],
  ['file:///models/a/', { model: '/models/a', args: [] }],
  ['pvc://store', { model: '/srv/models', args: [] }],
  ['pvc://store/a//b/', { model: '/srv/models/a/b', args: [] }],
  ['/models/a', { model: '/models/a', args: [] }],
  ['./a', { model: './fleets/a', args: [] }],
  ['../a', { model: './a', args: [] }],
  ['../../a', { model: '../a', args: [] }],
])('%s', (uri, place) => {
  expect(placeOf(uri, 'fleets/f.yaml', 'default', claims)).toEqual(place);
});

it.each([
  ['', 'is no URI'],
  ['owner/model', 'is no URI'],
  ['hf://model', 'hf://owner/model'],
  ['hf://a/b/c', 'hf://owner/model'],
  ['file://relative', 'absolute path'],
  ['pvc://nobody/a', 'no PersistentVolumeClaim nobody'],
  ['pvc://empty/a', 'claim empty has no folder'],
  ['pvc://store/../etc', 'leaves the claim'],
  ['s3://b/k', 'object store'],
  ['oci://image', 'container image'],
  ['constructor://x', 'unknown scheme'],
])('%s is refused: %s', (uri, error) => {
  expect(placeOf(uri, 'f.yaml', 'default', claims)).toEqual({ error: expect.stringContaining(error) });
});

it('the short form also takes what the command line takes', () => {
  expect(placeOfNative('owner/model', 'fleets/f.yaml', claims, 'default')).toEqual({ model: 'owner/model', args: [] });
  expect(placeOfNative('./m', 'fleets/f.yaml', claims, 'default')).toEqual({ model: './fleets/m', args: [] });
  expect(placeOfNative('s3://x', 'f.yaml', claims, 'default')).toHaveProperty('error');
});
