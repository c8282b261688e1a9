/**
 * How long a step takes, learned while serving: ms = theta . features, where the features are a fixed part, the decode
 * rows, the prefill tokens and the positions that attention reads. The estimator is a Kalman filter whose parameters drift
 * at random, with two guards: what was not seen for long cannot become more uncertain than a first guess would be, and a
 * measurement far off moves the estimate only as far as three standard deviations, unless the next ones agree with it.
 *
 * Source of the filter: Ljung, System Identification, 2nd ed., section 11.6 (the Kalman filter interpretation).
 */

/** What a step computes. */
export interface StepWork {
  /** Sequences that compute one token. */
  readonly decodeRows: number;
  readonly prefillTokens: number;
  /** Sum over all tokens of the positions they attend to. */
  readonly attended: number;
}

/** First guess: what each part costs, in units of one prefill token without context. */
const FIXED_TOKENS = 16;
const ATTENDED_PER_TOKEN = 4096;

const N = 4;
/** How far a parameter may have drifted since the last step, as a share of a unit: some 30 steps are remembered. */
const DRIFT = 0.01;
/** Standard deviation of a measurement, as a share of the step. */
const NOISE = 0.15;
const OUTLIER_SIGMAS = 3;
/** So many outliers in a row on the same side are no outliers: the machine has become slower or faster. */
const OUTLIERS_BELIEVED = 3;

export class StepCost {
  /** Each >= 0, in ms per unit of its feature. */
  private readonly theta = new Float64Array(N);
  /** Covariance of theta, [N, N]. */
  private readonly covariance = new Float64Array(N * N);
  private readonly features = new Float64Array(N);
  private readonly gain = new Float64Array(N);
  private known = false;
  /** Outliers in a row; negative when they were too small. */
  private outliers = 0;

  /** False until the first measurement. */
  get isKnown(): boolean {
    return this.known;
  }

  /** Expected milliseconds. */
  predict(work: StepWork): number {
    this.setFeatures(work);
    return this.dot();
  }

  /**
   * The number of prefill tokens, not rounded, that take `roomMs` when they start after `start` cached ones. 0 when there is
   * no room; Infinity when tokens seem to cost nothing.
   */
  tokensIn(roomMs: number, start: number): number {
    if (roomMs <= 0) return 0;
    const perPosition = (this.theta[3] as number) / ATTENDED_PER_TOKEN;
    // Of m tokens, token i attends to start + i + 1 positions: m (token + perPosition (start + m / 2)) = roomMs.
    const linear = (this.theta[2] as number) + perPosition * start;
    return (2 * roomMs) / (linear + Math.sqrt(linear * linear + 2 * perPosition * roomMs));
  }

  /** Learns from one step that took `ms`. */
  observe(work: StepWork, ms: number): void {
    if (!(ms > 0 && ms < Number.POSITIVE_INFINITY)) return;
    this.setFeatures(work);
    const size = this.features.reduce((sum, feature) => sum + feature, 0);
    if (!this.known) {
      this.theta.fill(ms / size);
      this.forgetAll(ms / size);
      this.known = true;
    }
    const predicted = this.dot();
    const unit = this.unit(predicted / size);
    // Of the smaller one: a machine is disturbed into being slow, never into being fast.
    const noise = (NOISE * Math.min(unit * size, ms)) ** 2;
    this.drift(unit);
    const variance = this.project() + noise;
    const limit = OUTLIER_SIGMAS * Math.sqrt(variance);
    const surprise = ms - predicted;
    if (Math.abs(surprise) <= limit) {
      this.outliers = 0;
      this.correct(surprise, variance);
    } else if (this.countOutlier(Math.sign(surprise)) < OUTLIERS_BELIEVED) {
      this.correct(Math.sign(surprise) * limit, variance);
    } else {
      this.changeSpeed(predicted, ms, ms / size);
    }
  }

  /** All parts of a step have become slower or faster alike, as far as one step can tell. */
  private changeSpeed(predicted: number, ms: number, unit: number): void {
    this.outliers = 0;
    for (let i = 0; i < N; i++) this.theta[i] = predicted > 0 ? ((this.theta[i] as number) * ms) / predicted : unit;
    this.forgetAll(unit);
  }

  /** What one unit of a feature costs now, about. */
  private unit(perUnit: number): number {
    const mean = this.theta.reduce((sum, value) => sum + value, 0) / N;
    return Math.max(perUnit, mean, 1e-9);
  }

  private countOutlier(side: number): number {
    this.outliers = Math.sign(this.outliers) === side ? this.outliers + side : side;
    return Math.abs(this.outliers);
  }

  private setFeatures(work: StepWork): void {
    this.features[0] = FIXED_TOKENS;
    this.features[1] = work.decodeRows;
    this.features[2] = work.prefillTokens;
    this.features[3] = work.attended / ATTENDED_PER_TOKEN;
  }

  private dot(): number {
    let sum = 0;
    for (let i = 0; i < N; i++) sum += (this.theta[i] as number) * (this.features[i] as number);
    return sum;
  }

  /** Every parameter is uncertain by the cost of one unit. */
  private forgetAll(unit: number): void {
    this.covariance.fill(0);
    for (let i = 0; i < N; i++) this.covariance[i * N + i] = unit * unit;
  }

  /** The covariance grows, in no parameter beyond that of {@link forgetAll}. */
  private drift(unit: number): void {
    const { covariance, gain } = this;
    for (let i = 0; i < N; i++) {
      const variance = (covariance[i * N + i] as number) + (DRIFT * unit) ** 2;
      covariance[i * N + i] = variance;
      gain[i] = Math.min(1, unit / Math.sqrt(variance));
    }
    for (let i = 0; i < N; i++) {
      for (let j = 0; j < N; j++) {
        covariance[i * N + j] = (covariance[i * N + j] as number) * (gain[i] as number) * (gain[j] as number);
      }
    }
  }

  /** Sets `gain` to covariance . features; returns the variance of a prediction. */
  private project(): number {
    const { covariance, features, gain } = this;
    let variance = 0;
    for (let i = 0; i < N; i++) {
      let sum = 0;
      for (let j = 0; j < N; j++) sum += (covariance[i * N + j] as number) * (features[j] as number);
      gain[i] = sum;
      variance += sum * (features[i] as number);
    }
    return variance;
  }

  private correct(surprise: number, variance: number): void {
    const { theta, covariance, gain } = this;
    for (let i = 0; i < N; i++) {
      const share = (gain[i] as number) / variance;
      theta[i] = (theta[i] as number) + share * surprise;
      for (let j = 0; j < N; j++) {
        covariance[i * N + j] = (covariance[i * N + j] as number) - share * (gain[j] as number);
      }
    }
    for (let i = 0; i < N; i++) if ((theta[i] as number) < 0) this.raiseToZero(i);
    for (let i = 0; i < N; i++) theta[i] = Math.max(0, theta[i] as number);
  }

  /** The others give way in the direction that measurements left open, so that what was measured stays predicted. */
  private raiseToZero(i: number): void {
    const share = (this.theta[i] as number) / (this.covariance[i * N + i] as number);
    for (let j = 0; j < N; j++) {
      this.theta[j] = (this.theta[j] as number) - share * (this.covariance[i * N + j] as number);
    }
  }
}
