/** Hands what callbacks push to one `for await` loop. */
export class DeltaQueue<T> {
  private readonly items: T[] = [];
  private failure: { readonly error: unknown } | null = null;
  private closed = false;
  private wake: (() => void) | null = null;

  push(item: T): void {
    this.items.push(item);
    this.ring();
  }

  /** The loop ends once what was pushed before has been taken. */
  close(): void {
    this.closed = true;
    this.ring();
  }

  /** The loop throws `error`. */
  fail(error: unknown): void {
    this.failure ??= { error };
    this.ring();
  }

  async *drain(): AsyncGenerator<T> {
    for (;;) {
      while (this.items.length > 0) yield this.items.shift() as T;
      if (this.failure !== null) throw this.failure.error;
      if (this.closed) return;
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
  }

  private ring(): void {
    this.wake?.();
    this.wake = null;
  }
}
