/** GPT-2's printable stand-ins for the 256 bytes. */
const CHAR_OF_BYTE: readonly string[] = buildTable();
const BYTE_OF_CHAR: ReadonlyMap<string, number> = new Map(CHAR_OF_BYTE.map((char, byte) => [char, byte]));
const encoder = new TextEncoder();

function buildTable(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    return String.fromCodePoint(printable ? byte : next++);
  });
}

/** UTF-8 bytes of the text, each written as its stand-in. */
export function bytesToChars(text: string): string {
  let mapped = '';
  let plainFrom = 0;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit > 0x20 && unit < 0x7f) continue;
    if (unit >= 0x80) return mapped + text.slice(plainFrom, i) + mapBytes(text.slice(i));
    mapped += text.slice(plainFrom, i) + CHAR_OF_BYTE[unit];
    plainFrom = i + 1;
  }
  return plainFrom === 0 ? text : mapped + text.slice(plainFrom);
}

function mapBytes(text: string): string {
  let mapped = '';
  for (const byte of encoder.encode(text)) mapped += CHAR_OF_BYTE[byte];
  return mapped;
}

/** The bytes of a token; one that is not made of stand-ins (an added token) is its own UTF-8. */
export function charsToBytes(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length);
  let length = 0;
  for (const char of token) {
    const byte = BYTE_OF_CHAR.get(char);
    if (byte === undefined) return encoder.encode(token);
    bytes[length++] = byte;
  }
  return bytes;
}
