/** Where a time stands on the timeline, in parts of its width. */

export class Scale {
  /**
   * @param {number[]} times all that are drawn, in milliseconds
   * @param {boolean} isEven whether each time that something happened is as far from the next, so
   *   that a wait of days does not hide what took milliseconds
   */
  constructor(times, isEven) {
    const sorted = [...new Set(times)].sort((one, other) => one - other);
    if (sorted.length === 0) sorted.push(0);
    if (sorted.length === 1) sorted.push(sorted[0] + 1);
    this.isEven = isEven;
    this.times = sorted;
    this.from = sorted[0];
    this.to = sorted[sorted.length - 1];
  }

  /**
   * Give the place of a time, from 0 to 1.
   * @param {number} time
   */
  at(time) {
    if (time <= this.from) return 0;
    if (time >= this.to) return 1;
    if (!this.isEven) return (time - this.from) / (this.to - this.from);
    const { times } = this;
    let low = 0;
    let high = times.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (times[middle] <= time) low = middle;
      else high = middle;
    }
    const inside = (time - times[low]) / (times[high] - times[low]);
    return (low + inside) / (times.length - 1);
  }

  /**
   * Give some times to write above, with their places.
   * @param {number} count
   * @returns {{time: number, at: number}[]}
   */
  marks(count) {
    return Array.from({ length: count }, (_, index) => {
      const part = index / (count - 1);
      const time = this.isEven
        ? this.times[Math.round(part * (this.times.length - 1))]
        : this.from + part * (this.to - this.from);
      return { time, at: this.at(time) };
    });
  }
}
