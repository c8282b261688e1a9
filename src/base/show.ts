const MAX_SHOWN = 80;

/** A value of unknown shape and size for an error message: short, and safe whatever its nesting. */
export function show(value: unknown): string {
  if (value === undefined) return 'missing';
  if (Array.isArray(value)) {
    const flat = value.length <= 16 && value.every((item) => typeof item !== 'object');
    return flat ? clip(JSON.stringify(value)) : `a list of ${value.length}`;
  }
  if (typeof value === 'object' && value !== null) return 'an object';
  return clip(JSON.stringify(typeof value === 'string' ? value.slice(0, MAX_SHOWN) : value));
}

function clip(text: string): string {
  return text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}...` : text;
}
