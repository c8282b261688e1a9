export declare class SessionRing {
  constructor(endpoints: readonly string[], seed?: bigint);
  /** `loadOf`: requests in flight, null = not to be chosen. Null when none can be chosen. */
  place(key: string, loadOf: (endpoint: string) => number | null): string | null;
}
