/**
 * Names for the content of full KV blocks. A name is the SHA-256 of the parent's name and the block's tokens, so two blocks
 * share one only when everything up to their end is equal; no request can be made to read another's cache by a crafted
 * collision.
 */
import { createHash } from 'node:crypto';
import type { Sequence } from './sequence.ts';

const HASH_BYTES = 32;

/** Parent of a first block: one per cache salt, so that caches of different salts are strangers. */
function rootHash(cacheSalt: string | null): string {
  const hash = createHash('sha256').update('tokenmill prefix cache root\0');
  if (cacheSalt !== null) hash.update('salt\0').update(cacheSalt);
  return hash.digest('binary');
}

export class BlockHasher {
  private readonly blockSize: number;
  private readonly unsaltedRoot = rootHash(null);
  /** Parent hash, then the block's token ids; hashing reads it at once, so one buffer serves all. */
  private readonly message: Buffer;

  constructor(blockSize: number) {
    this.blockSize = blockSize;
    this.message = Buffer.alloc(HASH_BYTES + blockSize * 4);
  }

  /** Extends `sequence.blockHashes` over the full blocks among its first `tokens` known tokens. */
  extend(sequence: Sequence, tokens: number): void {
    const { blockHashes, request } = sequence;
    const full = Math.floor(tokens / this.blockSize);
    while (blockHashes.length < full) {
      const index = blockHashes.length;
      const salt = request.cacheSalt;
      const root = salt === null ? this.unsaltedRoot : rootHash(salt);
      this.message.write(blockHashes[index - 1] ?? root, 0, 'binary');
      const { data } = sequence.tokens;
      for (let i = 0; i < this.blockSize; i++) {
        this.message.writeInt32LE(data[index * this.blockSize + i] as number, HASH_BYTES + i * 4);
      }
      blockHashes.push(createHash('sha256').update(this.message).digest('binary'));
    }
  }
}
