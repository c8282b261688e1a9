import { expect, it } from 'vitest';
import { bench } from './harness.ts';

it('a port in use is named, with a cure', async () => {
  const [one, two] = [await bench(), await bench()];
  const url = new URL(await one.server.listen({ host: '127.0.0.1', port: 0 }));
  const again = two.server.listen({ host: '127.0.0.1', port: Number(url.port) });
  await expect(again).rejects.toMatchObject({ code: 'port_in_use', message: expect.stringContaining(url.port) });
  await one.close();
  await two.close();
});

it('an address of another machine is refused as a flag', async () => {
  const b = await bench();
  await expect(b.server.listen({ host: '203.0.113.1', port: 0 })).rejects.toMatchObject({ code: 'flag_invalid' });
  await b.close();
});

it('headers that are too large get 431 in the error shape', async () => {
  const b = await bench({ maxHeaderBytes: 4096 });
  const url = await b.server.listen({ host: '127.0.0.1', port: 0 });
  const response = await fetch(`${url}/v1/models`, { headers: { 'x-large': 'a'.repeat(10_000) } });
  expect(response.status).toBe(431);
  expect(await response.json()).toMatchObject({ error: { code: 431 } });
  expect((await fetch(`${url}/health`)).status).toBe(200);
  await b.close();
});

it('more header lines than allowed get 431; none is dropped in silence', async () => {
  const b = await bench({ maxHeaderCount: 20 });
  const url = await b.server.listen({ host: '127.0.0.1', port: 0 });
  const ask = async (count: number) => {
    const headers = Object.fromEntries(Array.from({ length: count }, (_, i) => [`x-${i}`, 'y']));
    return (await fetch(`${url}/v1/models`, { headers })).status;
  };
  expect(await ask(5)).toBe(200);
  expect(await ask(20)).toBe(431);
  expect(await ask(300)).toBe(431);
  await b.close();
});
