// PNG files of 16 bits per pixel, whose lower bits a canvas drops; https://www.w3.org/TR/png-3

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const MAY_TURN = ["eXIf", "iTXt", "zTXt"];
const BYTES_PER_PIXEL = 2;

/** { height, width, values, transparent, peak } of such a file; null for others.
 *
 * In colour, interlaced, with alpha, or with metadata that may turn it, it has only { values: null }.
 */
export async function readDeep(blob) {
  const head = new Uint8Array(await blob.slice(0, 33).arrayBuffer());
  const [depth, colourType, , , interlaced] = head.subarray(24);
  if (!SIGNATURE.every((byte, at) => head[at] === byte) || depth !== 16) return null;
  const { names, compressed, transparent } = chunksOf(new DataView(await blob.arrayBuffer()));
  if (colourType !== 0 || interlaced || MAY_TURN.some(name => names.has(name))) return { values: null };
  const view = new DataView(head.buffer), [width, height] = [view.getUint32(16), view.getUint32(20)];
  const stream = new Blob(compressed).stream().pipeThrough(new DecompressionStream("deflate"));
  const rows = unfiltered(new Uint8Array(await new Response(stream).arrayBuffer()), height, BYTES_PER_PIXEL * width);
  const values = Uint16Array.from({ length: height * width }, (_, at) => 256 * rows[2 * at] + rows[2 * at + 1]);
  const peak = values.reduce((most, value) => value > most && value !== transparent ? value : most, 0);
  return { height, width, values, transparent, peak };
}

/** The names of all chunks, the compressed rows, and the value that is transparent, if any. */
function chunksOf(view) {
  const names = new Set(), compressed = [];
  let transparent = null;
  for (let at = 8; at + 8 <= view.byteLength;) {
    const size = view.getUint32(at), start = at + 8;
    const name = String.fromCharCode(...new Uint8Array(view.buffer, at + 4, 4));
    names.add(name);
    if (name === "IDAT") compressed.push(view.buffer.slice(start, start + size));
    if (name === "tRNS" && size === 2) transparent ??= view.getUint16(start);
    at = start + size + 4;
  }
  return { names, compressed, transparent };
}

/** Rows without the byte in front that tells how each was predicted. */
function unfiltered(filtered, height, length) {
  const rows = new Uint8Array(height * length);
  for (let y = 0; y < height; y++) {
    const filter = filtered[y * (length + 1)], start = y * length;
    for (let x = 0; x < length; x++) {
      const left = x < BYTES_PER_PIXEL ? 0 : rows[start + x - BYTES_PER_PIXEL];
      const above = y === 0 ? 0 : rows[start + x - length];
      const corner = y === 0 || x < BYTES_PER_PIXEL ? 0 : rows[start + x - length - BYTES_PER_PIXEL];
      rows[start + x] = filtered[start + y + 1 + x] + predicted(filter, left, above, corner);
    }
  }
  return rows;
}

function predicted(filter, left, above, corner) {
  if (filter === 1) return left;
  if (filter === 2) return above;
  if (filter === 3) return Math.floor((left + above) / 2);
  return filter === 4 ? paeth(left, above, corner) : 0;
}

/** Whichever neighbour is nearest to left + above - corner. */
function paeth(left, above, corner) {
  const estimate = left + above - corner;
  const [a, b, c] = [left, above, corner].map(value => Math.abs(estimate - value));
  if (a <= b && a <= c) return left;
  return b <= c ? above : corner;
}
