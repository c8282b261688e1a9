/**
 * Finds stop strings in a text that arrives in pieces. Each stop string is a Knuth-Morris-Pratt automaton fed character by
 * character, so the result cannot depend on where the pieces were cut, and the cost is linear in the text.
 */

/** Together; a stop string longer than any answer would only cost memory. */
export const MAX_STOP_CHARACTERS = 65536;

export interface StopResult {
  /** Text that is certain: it neither is nor may become the beginning of a stop string. */
  readonly text: string;
  /** The stop string that was completed first; null when none was. On a hit, `text` ends before it (or after it). */
  readonly stop: string | null;
}

class Automaton {
  readonly text: string;
  /** Characters of `text` that the input ends with. */
  matched = 0;
  /** fallback[i] = longest proper prefix of text that ends at i. */
  private readonly fallback: Int32Array;

  constructor(text: string) {
    this.text = text;
    this.fallback = new Int32Array(text.length);
    for (let i = 1, k = 0; i < text.length; i++) {
      while (k > 0 && text[i] !== text[k]) k = this.fallback[k - 1]!;
      if (text[i] === text[k]) k++;
      this.fallback[i] = k;
    }
  }

  /** True when the input so far ends with the stop string. */
  feed(character: string): boolean {
    while (this.matched > 0 && character !== this.text[this.matched]) this.matched = this.fallback[this.matched - 1]!;
    if (character === this.text[this.matched]) this.matched++;
    if (this.matched < this.text.length) return false;
    this.matched = this.fallback[this.matched - 1]!;
    return true;
  }
}

export class StopStrings {
  private readonly automata: readonly Automaton[];
  private readonly includeStop: boolean;
  /** Text held back: it may be the beginning of a stop string. */
  private held = '';

  constructor(stops: readonly string[], includeStop: boolean) {
    this.automata = stops.map((stop) => new Automaton(stop));
    this.includeStop = includeStop;
  }

  /** @param armed false before min_tokens: what completes then does not stop. */
  push(text: string, armed = true): StopResult {
    if (this.automata.length === 0) return { text, stop: null };
    const seen = this.held + text;
    for (let i = this.held.length; i < seen.length; i++) {
      const completed = this.feed(seen[i]!);
      if (completed === null || !armed) continue;
      this.held = '';
      const end = i + 1;
      // Characters that went out before min_tokens cannot be taken back.
      return { text: seen.slice(0, this.includeStop ? end : Math.max(0, end - completed.length)), stop: completed };
    }
    const keep = this.includeStop ? 0 : Math.max(...this.automata.map((automaton) => automaton.matched));
    this.held = seen.slice(seen.length - Math.min(keep, seen.length));
    return { text: seen.slice(0, seen.length - this.held.length), stop: null };
  }

  /** The end of the answer: what was held back is text after all. */
  flush(): string {
    const text = this.held;
    this.held = '';
    return text;
  }

  /** The first in the list wins among those completed by the same character. */
  private feed(character: string): string | null {
    let completed: string | null = null;
    for (const automaton of this.automata) {
      if (automaton.feed(character)) completed ??= automaton.text;
    }
    return completed;
  }
}
