/** Events by time in a binary heap of typed arrays; events of one time come in the order they were put in. */
export class EventHeap {
  private times = new Float64Array(1024);
  private orders = new Float64Array(1024);
  private kinds = new Uint8Array(1024);
  private as = new Int32Array(1024);
  private bs = new Int32Array(1024);
  private size = 0;
  private order = 0;

  /** Of the last event taken. */
  time = 0;
  kind = 0;
  a = 0;
  b = 0;

  get isEmpty(): boolean {
    return this.size === 0;
  }

  /** Of the next event; infinite when there is none. */
  get nextTime(): number {
    return this.size === 0 ? Number.POSITIVE_INFINITY : (this.times[0] as number);
  }

  push(time: number, kind: number, a: number, b: number): void {
    if (this.size === this.times.length) this.grow();
    const order = this.order++;
    let at = this.size++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.isBefore(time, order, parent)) break;
      this.move(parent, at);
      at = parent;
    }
    this.put(at, time, order, kind, a, b);
  }

  /** Into `time`, `kind`, `a`, `b`. The heap must not be empty. */
  pop(): void {
    this.time = this.times[0] as number;
    this.kind = this.kinds[0] as number;
    this.a = this.as[0] as number;
    this.b = this.bs[0] as number;
    const last = --this.size;
    if (last === 0) return;
    const [time, order] = [this.times[last] as number, this.orders[last] as number];
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= last) break;
      const right = child + 1;
      if (right < last && this.isBefore(this.times[right] as number, this.orders[right] as number, child))
        child = right;
      if (this.isBefore(time, order, child)) break;
      this.move(child, at);
      at = child;
    }
    this.put(at, time, order, this.kinds[last] as number, this.as[last] as number, this.bs[last] as number);
  }

  private isBefore(time: number, order: number, at: number): boolean {
    const other = this.times[at] as number;
    return time < other || (time === other && order < (this.orders[at] as number));
  }

  private move(from: number, to: number): void {
    this.times[to] = this.times[from] as number;
    this.orders[to] = this.orders[from] as number;
    this.kinds[to] = this.kinds[from] as number;
    this.as[to] = this.as[from] as number;
    this.bs[to] = this.bs[from] as number;
  }

  private put(at: number, time: number, order: number, kind: number, a: number, b: number): void {
    this.times[at] = time;
    this.orders[at] = order;
    this.kinds[at] = kind;
    this.as[at] = a;
    this.bs[at] = b;
  }

  private grow(): void {
    const grown = <Kind extends Float64Array | Int32Array | Uint8Array>(to: Kind, from: Kind): Kind => {
      to.set(from);
      return to;
    };
    const size = this.times.length * 2;
    this.times = grown(new Float64Array(size), this.times);
    this.orders = grown(new Float64Array(size), this.orders);
    this.kinds = grown(new Uint8Array(size), this.kinds);
    this.as = grown(new Int32Array(size), this.as);
    this.bs = grown(new Int32Array(size), this.bs);
  }
}
