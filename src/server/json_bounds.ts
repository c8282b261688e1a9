/** How much structure a JSON text holds, counted before it is parsed: parsing millions of keys or brackets takes minutes and gigabytes. */
import { bodyBoundError } from './validation.ts';

/** Keys, lists and objects. */
const MAX_NODES = 2 ** 18;
/** List items; prompts of token ids are the longest lists there are. */
const MAX_ITEMS = 2 ** 22;
const MAX_DEPTH = 128;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_LIST = 0x5b;
const CLOSE_LIST = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;

function endOfString(bytes: Uint8Array, start: number): number {
  let at = start + 1;
  for (; at < bytes.length && bytes[at] !== QUOTE; at++) if (bytes[at] === BACKSLASH) at++;
  return at;
}

/** Throws `schema_violation`. `bytes` need not be valid JSON. */
export function checkJsonBounds(bytes: Uint8Array): void {
  let nodes = 0;
  let items = 0;
  let depth = 0;
  for (let at = 0; at < bytes.length; at++) {
    switch (bytes[at]) {
      case QUOTE:
        at = endOfString(bytes, at);
        break;
      case COMMA:
        if (++items > MAX_ITEMS) throw bodyBoundError('too_long', `hold at most ${MAX_ITEMS} values`);
        break;
      case OPEN_LIST:
      case OPEN_OBJECT:
        if (++depth > MAX_DEPTH) throw bodyBoundError('too_deep', `be nested at most ${MAX_DEPTH} deep`);
        if (++nodes > MAX_NODES) throw bodyBoundError('too_long', `hold at most ${MAX_NODES} keys, lists and objects`);
        break;
      case COLON:
        if (++nodes > MAX_NODES) throw bodyBoundError('too_long', `hold at most ${MAX_NODES} keys, lists and objects`);
        break;
      case CLOSE_LIST:
      case CLOSE_OBJECT:
        depth--;
        break;
    }
  }
}
