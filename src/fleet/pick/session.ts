/**
 * Sessions stay with an endpoint: consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, "Consistent hashing
 * with bounded loads", 2016). A key goes to the first endpoint clockwise whose load is below `1.25` times the mean.
 */
import { KeyedHash } from './hash.ts';

const BOUND = 1.25;
const POINTS_PER_ENDPOINT = 128;

export class SessionRing {
  private readonly endpoints: readonly string[];
  private readonly hash: KeyedHash;
  /** Ascending, below 2^53; `owners[i]` is the index of the endpoint at `points[i]`. */
  private readonly points: Float64Array;
  private readonly owners: Int32Array;

  /** `seed`: the same for the same ring. */
  constructor(endpoints: readonly string[], seed = 0n) {
    this.endpoints = endpoints;
    this.hash = new KeyedHash(seed);
    const made: { readonly point: number; readonly owner: number }[] = [];
    for (const [owner, id] of endpoints.entries()) {
      for (let i = 0; i < POINTS_PER_ENDPOINT; i++) made.push({ point: this.hash.hash53(id, String(i)), owner });
    }
    made.sort((a, b) => a.point - b.point);
    this.points = Float64Array.from(made, ({ point }) => point);
    this.owners = Int32Array.from(made, ({ owner }) => owner);
  }

  /** `loadOf`: requests in flight, null = not to be chosen. Null when none can be chosen. */
  place(key: string, loadOf: (endpoint: string) => number | null): string | null {
    const { endpoints, owners } = this;
    const loads: (number | null)[] = [];
    let total = 0;
    let usable = 0;
    for (const id of endpoints) {
      const load = loadOf(id);
      loads.push(load);
      if (load === null) continue;
      total += load;
      usable++;
    }
    if (usable === 0) return null;
    // With this request counted some endpoint is always below it.
    const most = Math.ceil((BOUND * (total + 1)) / usable);
    const start = this.firstAtOrAfter(this.hash.hash53('key', key));
    for (let i = 0; i < owners.length; i++) {
      const owner = owners[(start + i) % owners.length] as number;
      const load = loads[owner] as number | null;
      if (load !== null && load < most) return endpoints[owner] as string;
    }
    return null;
  }

  private firstAtOrAfter(point: number): number {
    const { points } = this;
    let low = 0;
    let high = points.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((points[middle] as number) < point) low = middle + 1;
      else high = middle;
    }
    return low === points.length ? 0 : low;
  }
}
