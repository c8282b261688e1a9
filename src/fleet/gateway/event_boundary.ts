/**
 * Lets an event stream through only in whole events, so that an error can follow whatever came before it. A read that ends with an
 * event, as nearly all do, is passed on untouched.
 */
const LF = 10;
const EVENT_END = Buffer.from('\n\n');
const EVENT_END_CRLF = Buffer.from('\r\n\r\n');
/** An event larger than this is passed on in parts. */
const MAX_HELD_BYTES = 2 ** 20;

export class EventBoundary {
  private held: Buffer | null = null;

  /** What can go on; empty = nothing yet. `framed` stays usable when the result is `pieces` itself. */
  pass(pieces: readonly Buffer[]): readonly Buffer[] {
    const last = pieces[pieces.length - 1];
    if (this.held === null && last !== undefined && endsEvent(last)) return pieces;
    const all = this.held === null ? Buffer.concat(pieces) : Buffer.concat([this.held, ...pieces]);
    this.held = null;
    const plain = all.lastIndexOf(EVENT_END);
    const crlf = all.lastIndexOf(EVENT_END_CRLF);
    const end = Math.max(plain < 0 ? 0 : plain + 2, crlf < 0 ? 0 : crlf + 4);
    if (end < all.length && all.length - end <= MAX_HELD_BYTES) {
      this.held = all.subarray(end);
      return end === 0 ? [] : [all.subarray(0, end)];
    }
    return [all];
  }

  /** What is left when the stream ended as it should. */
  rest(): Buffer | null {
    const { held } = this;
    this.held = null;
    return held;
  }
}

function endsEvent(piece: Buffer): boolean {
  const { length } = piece;
  return (
    piece[length - 1] === LF && (piece[length - 2] === LF || (piece[length - 3] === LF && piece[length - 2] === 13))
  );
}
