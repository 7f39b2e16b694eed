// A grid of any number of cells, of which only the visible ones are elements of the page.

const MIN_CELL = 88, GAP = 8; // pixels of a cell, of which the gap is to the next one
const ROWS_BEYOND = 3; // kept above and below what is visible

/** A grid in `box`, which scrolls; `inner` is its only child, as high as all cells.
 *
 * `key(at)` says what the cell at a position shows; `make(at, signal)` makes its element, which is removed when another
 * key is to be shown or the cell is out of sight; then `signal` is aborted. `needed(first, end)` is told what is visible.
 */
export function virtualGrid(box, inner, { key, make, needed }) {
  const cells = new Map(); // by position
  let total = 0, columns = 1, side = MIN_CELL, height = 0, shown = [0, 0], waiting = false;

  /** Read the size of the box; while it is scrolled, nothing is read but how far. */
  function measure() {
    const width = inner.clientWidth;
    height = box.clientHeight;
    columns = Math.max(Math.floor(width / MIN_CELL), 1);
    side = Math.max(Math.floor(width / columns), MIN_CELL);
  }

  function lay() {
    inner.style.height = `${Math.ceil(total / columns) * side}px`;
    inner.style.setProperty("--cell", `${side - GAP}px`);
    shown = visible();
    const [first, end] = shown;
    needed(first, end);
    for (const [at, cell] of cells) if (at < first || at >= end || cell.key !== key(at)) remove(at, cell);
    for (let at = first; at < end; at++) {
      if (!cells.has(at)) place(at);
      put(cells.get(at), at);
    }
  }

  /** The position of the first cell that must be on the page, and the one after the last. */
  function visible() {
    const rows = Math.ceil(height / side) + 2 * ROWS_BEYOND;
    const first = Math.max(Math.floor(box.scrollTop / side) - ROWS_BEYOND, 0) * columns;
    return [first, Math.min(first + rows * columns, total)];
  }

  function put(cell, at) {
    const place = `translate(${at % columns * side}px, ${Math.floor(at / columns) * side}px)`;
    if (cell.place === place) return;
    cell.element.style.transform = cell.place = place;
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
      if (visible().some((end, at) => end !== shown[at])) lay();
    });
  }, { passive: true });
  new ResizeObserver(() => {
    measure();
    lay();
  }).observe(box);

  return {
    /** Cells in a row. */
    columns: () => columns,
    /** Cells that are visible at a time. */
    screen: () => columns * Math.max(Math.floor(height / side), 1),
    /** Positions and elements of the cells that are on the page. */
    elements: () => [...cells].map(([at, { element }]) => [at, element]),
    /** Show `count` cells. */
    resize(count) {
      total = count;
      measure();
      lay();
    },
    toTop() { box.scrollTop = 0; },
    toEnd() { box.scrollTop = box.scrollHeight; },
    /** Scroll until a cell is visible. */
    reveal(at) {
      const top = Math.floor(at / columns) * side;
      box.scrollTop = Math.min(Math.max(box.scrollTop, top + side - height), top);
      lay();
    },
  };
}
