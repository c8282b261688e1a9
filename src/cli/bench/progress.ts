/** One line that is written over on a terminal, and left out where it would only fill a log. */

export interface ProgressLine {
  show(text: string): void;
  clear(): void;
}

/** Writes at most every 100 ms. */
export function progressLine(stream: NodeJS.WriteStream): ProgressLine {
  let shownMs = 0;
  return {
    show(text) {
      const now = performance.now();
      if (!stream.isTTY || now - shownMs < 100) return;
      shownMs = now;
      stream.write(`\r\x1b[K${text.slice(0, Math.max(10, stream.columns - 1))}`);
    },
    clear() {
      if (stream.isTTY) stream.write('\r\x1b[K');
    },
  };
}
