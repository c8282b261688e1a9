/** Kubernetes quantities (k8s.io/apimachinery resource.Quantity): `1.5`, `300m`, `2Gi`, `1e3`. */
import { TokenmillError } from '../base/errors.ts';

const DECIMAL: Readonly<Record<string, number>> = { n: -9, u: -6, m: -3, '': 0, k: 3, M: 6, G: 9, T: 12, P: 15, E: 18 };
const BINARY = ['Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei'];

const FORM = /^([+-]?)(\d{0,30})(?:\.(\d{0,30}))?(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,2}))?$/;

/**
 * The double that the API's own `AsApproximateFloat64` gives: the digits of the stored text, whose exponent is a multiple of
 * three, times that power of ten. So "0.7" is 0.7000000000000001.
 */
export function parseQuantity(text: string): number {
  const form = FORM.exec(text);
  const [, sign = '', whole = '', fraction = '', suffix = '', exponent] = form ?? [];
  if (form === null || whole + fraction === '') {
    throw new TokenmillError('invalid_manifest', `"${text}" is not a quantity.`, {
      remedy: 'Write a number with an optional suffix, e.g. 0.5, 250m, 2Gi or 1e3.',
    });
  }
  const digits = `${whole}${fraction}`.replace(/0+$/, '');
  const trailing = whole.length + fraction.length - digits.length;
  const binary = BINARY.indexOf(suffix);
  const scale = binary >= 0 ? 0 : exponent === undefined ? (DECIMAL[suffix] as number) : Number(exponent);
  const power = scale - fraction.length + trailing;
  const stored = Math.floor(power / 3) * 3;
  const mantissa = Number(`${sign}${digits || '0'}`) * 10 ** (power - stored);
  const value = stored === 0 ? mantissa : mantissa * 10 ** stored;
  return binary >= 0 ? value * 1024 ** (binary + 1) : value;
}
