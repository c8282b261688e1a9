/**
 * A value as KEDA hands it to Kubernetes: in thousandths, from a text with three decimals that is the nearest to the double's
 * exact value, a tie going to the even digit (Go's `%.3f`; JavaScript's `toFixed` lets ties go up). Below 0 and what is not a
 * finite number is 0 (KEDA 2.21, pkg/scalers/scaler.go).
 */
export function toMilli(value: number): number {
  if (!Number.isFinite(value) || value < 0) return 0;
  const nearest = Math.round(Number(value.toFixed(3)) * 1000);
  // Only an odd number of sixteenths lies exactly between two thousandths; times 16 is exact.
  const tie = Math.abs((value * 16) % 2) === 1;
  return tie && nearest % 2 === 1 ? nearest - 1 : nearest;
}

/** The double that a value in thousandths is read back as (`AsApproximateFloat64`). */
export function fromMilli(milli: number): number {
  return milli * 0.001;
}

/** To whole thousandths toward zero; what does not fit 64 bits is what amd64 makes of it. */
export function truncatedMilli(milli: number): number {
  return Math.abs(milli) < 2 ** 63 ? Math.trunc(milli) + 0 : -(2 ** 63);
}
