/**
 * Is the canary worse than the stable revision? Tests that may be looked at after each request and stopped at any time: under "not
 * worse" the evidence ever reaches 1/alpha with probability at most alpha (Ville's inequality), however often somebody peeks. Evidence
 * is an e-process (Ramdas, Grünwald, Vovk, Shafer 2023, "Game-theoretic statistics and safe anytime-valid inference"; Waudby-Smith,
 * Ramdas 2024, "Estimating means of bounded random variables by betting", JRSS B 86(1)); a mean of e-processes is one again, so
 * several tests share one alpha.
 *
 * Two of them, each for two Bernoulli rates, p of the canary and q of the stable revision:
 *
 * - {@link lnEvidence}, for p <= q + margin with rates that stay. For one rate, the mixture likelihood ratio
 *   M(p) = B(e + 1/2, n - e + 1/2) / B(1/2, 1/2) / (p^e (1 - p)^(n - e)) is a martingale under p that starts at 1 (Robbins' method of
 *   mixtures; Howard, Ramdas, McAuliffe, Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of
 *   Statistics 49(2); for A/B tests Johari, Koomen, Pekelis, Walsh 2022, "Always valid inference", Operations Research 70(3)). So is
 *   M_canary(p) (1/2 + M_stable(q) / 2) under (p, q), and its least value over the null is the evidence. The half keeps a long history
 *   of the stable revision from costing more than log 2.
 * - {@link lnOddsEvidence}, for p <= q with rates that may change from look to look, as latencies do with the load. Of what one look
 *   adds, only who had the hits counts: given their number, those of the canary are hypergeometric when p = q (Fisher's exact test made
 *   sequential; ter Schure, Pérez-Ortiz, Ly, Grünwald 2024, "The anytime-valid logrank test", NEJSDS 2(2)).
 *
 * Requests between two looks count as independent. A fault that hits whole minutes of one revision only is a fault of that revision.
 */

export interface Counts {
  readonly trials: number;
  /** Of the trials: those that count against it. */
  readonly hits: number;
}

/** Lanczos, g = 7, 9 terms: 15 digits for x >= 1/2. */
const LANCZOS = [
  0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
  12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
];

export function lnGamma(x: number): number {
  let sum = LANCZOS[0] as number;
  for (let i = 1; i < LANCZOS.length; i++) sum += (LANCZOS[i] as number) / (x - 1 + i);
  const t = x + 6.5;
  return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(t) - t + Math.log(sum);
}

/** ln of the mixture over Beta(1/2, 1/2) of the likelihood of these counts. */
function lnMixture({ trials, hits }: Counts): number {
  return lnGamma(hits + 0.5) + lnGamma(trials - hits + 0.5) - lnGamma(trials + 1) - Math.log(Math.PI);
}

function lnLikelihood({ trials, hits }: Counts, p: number): number {
  return (hits === 0 ? 0 : hits * Math.log(p)) + (trials === hits ? 0 : (trials - hits) * Math.log1p(-p));
}

/** ln(1/2 + e^x / 2) */
function lnHalf(x: number): number {
  return x > 0 ? x + Math.log1p(Math.exp(-x)) - Math.LN2 : Math.log1p(Math.exp(x)) - Math.LN2;
}

const GOLDEN = (Math.sqrt(5) - 1) / 2;

/** Least value of a convex function on [low, high]. */
function leastOf(f: (x: number) => number, low: number, high: number): number {
  let [a, b] = [low, high];
  let [c, d] = [b - GOLDEN * (b - a), a + GOLDEN * (b - a)];
  let [fc, fd] = [f(c), f(d)];
  // 1e-6 of the interval; the function is flat about its least value.
  for (let i = 0; i < 28; i++) {
    if (fc < fd) {
      [b, d, fd] = [d, c, fc];
      c = b - GOLDEN * (b - a);
      fc = f(c);
    } else {
      [a, c, fc] = [c, d, fd];
      d = a + GOLDEN * (b - a);
      fd = f(d);
    }
  }
  return Math.min(fc, fd, f(a), f(b));
}

/**
 * ln of the evidence against "the canary's rate is at most the stable's + `margin`"; below 0 where the counts speak for it. Reject
 * at ln(1/alpha). Counts only grow; which of the two grows next may depend on everything seen so far.
 */
export function lnEvidence(canary: Counts, stable: Counts, margin: number): number {
  const rateOf = ({ trials, hits }: Counts) => (trials === 0 ? 0 : hits / trials);
  const [canaryRate, stableRate] = [rateOf(canary), rateOf(stable)];
  const [canaryMixture, stableMixture] = [lnMixture(canary), lnMixture(stable)];
  const at = (p: number, q: number) =>
    canaryMixture - lnLikelihood(canary, p) + lnHalf(stableMixture - lnLikelihood(stable, q));
  if (canaryRate <= stableRate + margin) return at(canaryRate, stableRate);
  // Convex in both, so least on the edge of the null, between the two observed rates.
  return leastOf((q) => at(Math.min(1, q + margin), q), stableRate, canaryRate - margin);
}

/** Odds ratios that the second test bets on, in equal parts. */
const ODDS_RATIOS = [1.5, 2, 4, 8, 20, 100];

/** Hits of one look beyond which it is left out: the sum over them would hold up the control loop. */
const MAX_HITS = 100_000;

export type OddsMemory = readonly number[];

export const NO_ODDS: OddsMemory = ODDS_RATIOS.map(() => 0);

/** ln of the evidence that each odds ratio has after one more look, which added these counts. */
export function nextOdds(memory: OddsMemory, canary: Counts, stable: Counts): OddsMemory {
  const hits = canary.hits + stable.hits;
  if (hits === 0 || hits > MAX_HITS || canary.trials === 0 || stable.trials === 0) return memory;
  // A request and its error counted in two looks: this one is no sample of anything.
  if (canary.hits > canary.trials || stable.hits > stable.trials) return memory;
  return memory.map((ln, i) => {
    const lnRatio = Math.log(ODDS_RATIOS[i] as number);
    return ln + canary.hits * lnRatio - lnHypergeometricMean(canary.trials, stable.trials, hits, lnRatio);
  });
}

/** ln of the mean of ratio^K, K = how many of `hits` hits among all trials fall to the canary's. */
function lnHypergeometricMean(canary: number, stable: number, hits: number, lnRatio: number): number {
  const [low, high] = [Math.max(0, hits - stable), Math.min(hits, canary)];
  // Terms relative to the first, kept in range by their largest so far.
  let [lnTerm, lnTermPlain, lnSum, lnSumPlain] = [low * lnRatio, 0, low * lnRatio, 0];
  for (let k = low; k < high; k++) {
    const lnStep = Math.log(((canary - k) * (hits - k)) / ((k + 1) * (stable - hits + k + 1)));
    lnTerm += lnStep + lnRatio;
    lnTermPlain += lnStep;
    lnSum = lnAdd(lnSum, lnTerm);
    lnSumPlain = lnAdd(lnSumPlain, lnTermPlain);
  }
  return lnSum - lnSumPlain;
}

function lnAdd(a: number, b: number): number {
  return a > b ? a + Math.log1p(Math.exp(b - a)) : b + Math.log1p(Math.exp(a - b));
}

/** ln of the evidence against "the canary's rate is at most the stable's". */
export function lnOddsEvidence(memory: OddsMemory): number {
  return lnMean(memory);
}

/** ln of the mean of evidences given by their ln. */
export function lnMean(evidences: readonly number[]): number {
  if (evidences.length === 0) return 0;
  const most = Math.max(...evidences);
  const sum = evidences.reduce((total, x) => total + Math.exp(x - most), 0);
  return most + Math.log(sum / evidences.length);
}
