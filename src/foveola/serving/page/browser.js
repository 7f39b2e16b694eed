// The backend that runs the model in this browser; `foveola export --format web` names it backend.js.
// Its documents are those of the server. Once it is open it sends no requests, so images stay on this machine.

import * as ort from "../runtime/ort.wasm.bundle.min.js";
import { decode, round, toChannels } from "./decoding.js";
import { checkImage, fileFindings } from "./checks.js";
import { applyFixes, inOrder, proposedFixes } from "./fixes.js";
import { range } from "./foreground.js";

const BATCH = 64;
const MAX_MAPS = 64;
const SQUARES_PER_SIDE = 7;
let model, file, session, layerSession;

export async function open() {
  let runtime;
  [model, file, runtime] = await Promise.all([
    fetchFile("model.json").then(response => response.json()),
    fetchFile("model.onnx").then(bytes),
    fetchFile("runtime/ort-wasm-simd-threaded.wasm").then(bytes),
  ]);
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = 1; // more threads need headers that few static hosts send
  ort.env.wasm.wasmBinary = runtime; // then the content type that the host sends does not matter
  session = await ort.InferenceSession.create(file).catch(error => {
    throw new Error(
      `This browser cannot run the model: ${error.message}. Use a newer browser, or export the run again.`);
  });
  return model;
}

async function fetchFile(path) {
  const response = await fetch(path).catch(() => ({ ok: false, status: "no connection" }));
  if (!response.ok) {
    throw new Error(`${path} could not be loaded (${response.status}). Reload the page, or export the run again.`);
  }
  return response;
}

const bytes = async response => new Uint8Array(await response.arrayBuffer());

export async function predict(blob, { fixes = [], signal } = {}) {
  const { seen, findings, applied } = await prepare(blob, fixes);
  signal?.throwIfAborted();
  const { logits, unfamiliarity } = await session.run(batch([seen.data]));
  const probabilities = probabilitiesOf(logits.data), unfamiliar = familiarity(unfamiliarity?.data[0]);
  const order = [...probabilities.keys()].sort((one, other) => probabilities[other] - probabilities[one]);
  const top = order.map(index => ({ class: model.class_names[index], probability: probabilities[index] }));
  const uncertain = isUncertain(top[0].probability);
  const labels = model.task === "multilabel" ? { labels: labelsOf(probabilities, order) } : {};
  return { ...labels, ...top[0], uncertain, ...unfamiliar, top, findings, fixes: applied, seen: seenDocument(seen) };
}

export async function look(blob, { fixes = [], class: name, signal } = {}) {
  const { seen } = await prepare(blob, fixes);
  signal?.throwIfAborted();
  const [probabilities] = await classify([seen.data]);
  const best = probabilities.indexOf(Math.max(...probabilities));
  const index = name === undefined ? best : model.class_names.indexOf(name);
  const saliency = await occlusion(seen, index, probabilities[index], signal);
  return { seen: seenDocument(seen), class: model.class_names[index], layers: await featureMaps(seen), saliency };
}

export async function keep() {
  throw new Error("This page has no server that could keep images. Download the image instead.");
}

// The network's input

async function prepare(blob, fixes) {
  const frame = await decode(blob, model.limits.pixels, model.white_level);
  const image = model.channels === "grey" ? toChannels(frame.image, 1) : frame.image;
  const findings = [...fileFindings(frame, model.white_level), ...checkImage(image, model)];
  const applied = fixes === "auto" ? proposedFixes(findings) : inOrder(fixes);
  if (model.image_shape[2] < image.channels && !applied.includes("grey")) {
    throw new Error(
      "This is a colour image (3 channels), but the model was trained on grey images (1 channel). " +
      "Switch on the fix “grey” to convert it.");
  }
  return { seen: applyFixes(image, applied, model), findings, applied };
}

const seenDocument = ({ data }) => ({ shape: model.image_shape, pixels: base64(data) });

function isUncertain(probability) {
  return model.reject !== null && !(model.reject.threshold !== null && probability >= model.reject.threshold);
}

/** `unfamiliar` and `unfamiliarity` as the server gives them, of a score. */
function familiarity(score) {
  if (!model.unfamiliarity) return { unfamiliar: null, unfamiliarity: null };
  const { threshold } = model.unfamiliarity;
  return { unfamiliar: score > threshold, unfamiliarity: { score, threshold } };
}

// The network

/** The probabilities of all classes for images of the model's own shape, each a Uint8Array. */
async function classify(images) {
  const { logits } = await session.run(batch(images));
  const classes = model.class_names.length;
  return images.map((_, index) => probabilitiesOf(logits.data.subarray(index * classes, (index + 1) * classes)));
}

function batch(images) {
  const data = new Uint8Array(images.length * images[0].length);
  images.forEach((image, index) => data.set(image, index * image.length));
  return { images: new ort.Tensor("uint8", data, [images.length, ...model.image_shape]) };
}

/** Of one class an image, softmax; of several labels, the logistic function of each. */
function probabilitiesOf(logits) {
  return model.task === "multilabel" ? Float64Array.from(logits, logit => 1 / (1 + Math.exp(-logit))) : softmax(logits);
}

/** The labels that reach their thresholds, most probable first. */
function labelsOf(probabilities, order) {
  return order.filter(index => probabilities[index] >= (model.thresholds?.[index] ?? 0.5))
    .map(index => model.class_names[index]);
}

function softmax(logits) {
  const highest = Math.max(...logits);
  const powers = Array.from(logits, logit => Math.exp(logit - highest));
  const total = powers.reduce((sum, power) => sum + power);
  return powers.map(power => power / total);
}

// Outputs of the layers

async function featureMaps(seen) {
  layerSession ??= ort.InferenceSession.create(withOutputs(model.layers.map(layer => layer.tensor)));
  const outputs = await (await layerSession).run(batch([seen.data]));
  return model.layers.map(({ name, type, tensor }) => ({ name, type, ...layerDocument(outputs[tensor]) }));
}

/** The model file with these tensors as additional outputs: serialized Protocol Buffers merge by concatenation. */
function withOutputs(tensors) {
  const values = tensors.filter(tensor => !session.outputNames.includes(tensor)).flatMap(tensor =>
    field(12, field(1, [...new TextEncoder().encode(tensor)]))); // GraphProto.output, ValueInfoProto.name
  const added = field(7, values); // ModelProto.graph
  const whole = new Uint8Array(file.length + added.length);
  whole.set(file);
  whole.set(added, file.length);
  return whole;
}

/** A length-delimited field as bytes: https://protobuf.dev/programming-guides/encoding */
function field(number, content) {
  const length = [];
  let rest = content.length;
  for (; rest > 127; rest >>= 7) length.push(rest & 127 | 128);
  return [number << 3 | 2, ...length, rest, ...content];
}

/** Maps, 1×C×H×W, as H×W×C, at most MAX_MAPS; units, 1×N, unchanged. */
function layerDocument({ dims, data }) {
  if (dims.length === 2) return scaled([dims[1]], data);
  const [, channels, height, width] = dims, maps = Math.min(channels, MAX_MAPS);
  const values = Float32Array.from({ length: height * width * maps }, (_, at) =>
    data[at % maps * height * width + Math.floor(at / maps)]);
  return scaled([height, width, maps], values);
}

function scaled(shape, values) {
  const [low, high] = range(values), step = high > low ? 255 / (high - low) : 0;
  return { shape, low, high, values: base64(Uint8Array.from(values, value => Math.round((value - low) * step))) };
}

// Occlusion

/** How much covering a square lowers the class's probability, H×W: explanation/occlusion.py in JavaScript. */
async function occlusion(seen, index, before, signal) {
  const { height, width } = seen;
  const size = Math.max(Math.round(Math.max(height, width) / SQUARES_PER_SIDE), 1);
  const squares = starts(height, size).flatMap(top => starts(width, size).map(left => ({ top, left, size })));
  const drops = new Float64Array(height * width), covering = new Float64Array(height * width);
  const background = backgroundColour(seen);
  for (let start = 0; start < squares.length; start += BATCH) {
    const batchSquares = squares.slice(start, start + BATCH);
    const after = await classify(batchSquares.map(square => covered(seen, square, background)));
    batchSquares.forEach((square, number) => pixelsOf(square, seen).forEach(pixel => {
      drops[pixel] += before - after[number][index];
      covering[pixel] += 1;
    }));
    await new Promise(resolve => setTimeout(resolve)); // keeps the page responsive
    signal?.throwIfAborted();
  }
  return scaled([height, width], drops.map((drop, pixel) => drop / covering[pixel]));
}

/** Starts of squares along a side, half a square apart, the last one at the border. */
function starts(side, size) {
  const stride = Math.max(Math.floor(size / 2), 1), last = Math.max(side - size, 0);
  return [...Array.from({ length: Math.ceil(last / stride) }, (_, number) => number * stride), last];
}

function pixelsOf({ top, left, size }, { height, width }) {
  const pixels = [];
  for (let y = top; y < Math.min(top + size, height); y++) {
    for (let x = left; x < Math.min(left + size, width); x++) pixels.push(y * width + x);
  }
  return pixels;
}

function covered(seen, square, background) {
  const data = seen.data.slice();
  for (const pixel of pixelsOf(square, seen)) data.set(background, pixel * seen.channels);
  return data;
}

/** Black or white as in the training images, or the image's mean if those have no common background. */
function backgroundColour({ channels, data }) {
  if (model.polarity !== "mixed") return Array(channels).fill(model.polarity === "dark on light" ? 255 : 0);
  const sums = Array(channels).fill(0);
  data.forEach((value, at) => sums[at % channels] += value);
  return sums.map(sum => round(sum * channels / data.length));
}

function base64(values) {
  let text = "";
  for (let start = 0; start < values.length; start += 2 ** 15) {
    text += String.fromCharCode(...values.subarray(start, start + 2 ** 15));
  }
  return btoa(text);
}
