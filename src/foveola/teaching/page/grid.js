// A grid of any number of cells, of which only the visible ones are elements of the page.

const MIN_CELL = 88, GAP = 8; // pixels of a cell, of which the gap is to the next one
const ROWS_BEYOND = 2; // kept above and below what is visible

/** A grid in `box`, which scrolls; `inner` is its only child, as high as all cells.
 *
 * `key(at)` says what the cell at a position shows; `make(at, signal)` makes its element, which is removed when another
 * key is to be shown or the cell is out of sight; then `signal` is aborted. `needed(first, end)` is told what is visible.
 */
export function virtualGrid(box, inner, { key, make, needed }) {
  const cells = new Map(); // by position
  let total = 0, waiting = false;

  const columns = () => Math.max(Math.floor(inner.clientWidth / MIN_CELL), 1);
  const side = () => Math.max(Math.floor(inner.clientWidth / columns()), MIN_CELL);

  function lay() {
    const across = columns(), size = side(), rows = Math.ceil(box.clientHeight / size) + 2 * ROWS_BEYOND;
    inner.style.height = `${Math.ceil(total / across) * size}px`;
    inner.style.setProperty("--cell", `${size - GAP}px`);
    const first = Math.max(Math.floor(box.scrollTop / size) - ROWS_BEYOND, 0) * across;
    const end = Math.min(first + rows * across, total);
    needed(first, end);
    for (const [at, cell] of cells) if (at < first || at >= end || cell.key !== key(at)) remove(at, cell);
    for (let at = first; at < end; at++) {
      if (!cells.has(at)) place(at);
      const x = at % across * size, y = Math.floor(at / across) * size;
      cells.get(at).element.style.transform = `translate(${x}px, ${y}px)`;
    }
  }

  function place(at) {
    const leaving = new AbortController(), element = make(at, leaving.signal);
    cells.set(at, { element, leaving, key: key(at) });
    inner.append(element);
  }

  function remove(at, { element, leaving }) {
    leaving.abort();
    element.remove();
    cells.delete(at);
  }

  box.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      lay();
    });
  }, { passive: true });
  new ResizeObserver(lay).observe(box);

  return {
    lay,
    columns,
    /** Cells that are visible at a time. */
    screen: () => columns() * Math.max(Math.floor(box.clientHeight / side()), 1),
    /** Positions and elements of the cells that are on the page. */
    elements: () => [...cells].map(([at, { element }]) => [at, element]),
    /** Show `count` cells. */
    resize(count) {
      total = count;
      lay();
    },
    toTop() { box.scrollTop = 0; },
    toEnd() { box.scrollTop = box.scrollHeight; },
    /** Scroll until a cell is visible. */
    reveal(at) {
      const size = side(), top = Math.floor(at / columns()) * size;
      box.scrollTop = Math.min(Math.max(box.scrollTop, top + size - box.clientHeight), top);
      lay();
    },
  };
}
