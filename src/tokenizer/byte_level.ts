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
