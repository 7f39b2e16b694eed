// A grid of any number of cells, of which only the visible ones are elements of the page.

const CELL = 88; // pixels of a cell with its margin: teach.css
const ROWS_BEYOND = 2; // kept above and below what is visible

/** A grid in `box`, which scrolls; `inner` is its only child, as high as all cells.
 *
 * `key(at)` says what the cell at a position shows; `make(at, signal)` makes its element, which is removed when another
 * key is to be shown or the cell is out of sight; then `signal` is aborted. `needed(first, end)` is told what is visible.
 */
export function virtualGrid(box, inner, { key, make, needed }) {
  const cells = new Map(); // by position
  let total = 0, waiting = false;

  const columns = () => Math.max(Math.floor(inner.clientWidth / CELL), 1);

  function lay() {
    const across = columns(), rows = Math.ceil(box.clientHeight / CELL) + 2 * ROWS_BEYOND;
    inner.style.height = `${Math.ceil(total / across) * CELL}px`;
    const first = Math.max(Math.floor(box.scrollTop / CELL) - ROWS_BEYOND, 0) * across;
    const end = Math.min(first + rows * across, total);
    needed(first, end);
    for (const [at, cell] of cells) if (at < first || at >= end || cell.key !== key(at)) remove(at, cell);
    for (let at = first; at < end; at++) {
      if (!cells.has(at)) place(at);
      const x = at % across * CELL, y = Math.floor(at / across) * CELL;
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
    screen: () => columns() * Math.max(Math.floor(box.clientHeight / CELL), 1),
    /** Positions and elements of the cells that are on the page. */
    elements: () => [...cells].map(([at, { element }]) => [at, element]),
    /** Show `count` cells; if the last ones were visible, they are again. */
    resize(count) {
      const followed = count > total && total > 0 && box.scrollTop + box.clientHeight >= box.scrollHeight - CELL;
      total = count;
      lay();
      if (followed) box.scrollTop = box.scrollHeight;
    },
    toTop() { box.scrollTop = 0; },
    /** Scroll until a cell is visible. */
    reveal(at) {
      const top = Math.floor(at / columns()) * CELL;
      box.scrollTop = Math.min(Math.max(box.scrollTop, top + CELL - box.clientHeight), top);
      lay();
    },
  };
}
