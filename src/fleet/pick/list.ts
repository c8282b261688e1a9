/** Places in a doubly linked list, kept in the item itself. */
export interface Links<T> {
  before: T | null;
  after: T | null;
}

/** Doubly linked list: an item is taken from the middle in O(1). An item may be in several lists, with links for each. */
export class List<T> {
  first: T | null = null;
  last: T | null = null;
  size = 0;
  private readonly linksOf: (item: T) => Links<T>;

  constructor(linksOf: (item: T) => Links<T>) {
    this.linksOf = linksOf;
  }

  push(item: T): void {
    const links = this.linksOf(item);
    links.before = this.last;
    links.after = null;
    if (this.last === null) this.first = item;
    else this.linksOf(this.last).after = item;
    this.last = item;
    this.size++;
  }

  /** Removes an item that is in this list. */
  remove(item: T): void {
    const { before, after } = this.linksOf(item);
    if (before === null) this.first = after;
    else this.linksOf(before).after = after;
    if (after === null) this.last = before;
    else this.linksOf(after).before = before;
    this.size--;
  }
}
