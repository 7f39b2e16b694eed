// The camera: one stream for all parts of the page, its frames as JPEG files, and frames a second.

const MAX_SIDE = 640, QUALITY = 0.92;
const RATE_MILLISECONDS = 2000; // over which a rate is measured
const views = new Set();
let opening = null, deviceId;

/** What the camera sees, in a video element; `failed(text)` is called when it cannot go on. */
export function cameraView(video, failed) {
  const view = {
    /** Whether frames can be taken. */
    get ready() { return video.srcObject !== null && video.readyState >= video.HAVE_CURRENT_DATA; },
    async start() {
      views.add(view);
      try {
        const stream = await (opening ??= open());
        if (!views.has(view)) return release();
        video.srcObject = stream;
        stream.getVideoTracks()[0].addEventListener("ended", () => {
          if (video.srcObject === stream) view.fail("The camera was disconnected. Connect it, then select Camera again.");
        });
        await video.play().catch(() => {}); // a newer call to start or stop interrupts it
      } catch (error) {
        opening = null;
        view.fail(reason(error));
      }
    },
    stop() {
      views.delete(view);
      video.srcObject = null;
      release();
    },
    fail(text) {
      view.stop();
      failed(text);
    },
    /** The present frame, its longer side at most 640 pixels. */
    frame() {
      const scale = Math.min(MAX_SIDE / Math.max(video.videoWidth, video.videoHeight), 1);
      const width = Math.round(scale * video.videoWidth), height = Math.round(scale * video.videoHeight);
      const canvas = Object.assign(document.createElement("canvas"), { width, height });
      canvas.getContext("2d").drawImage(video, 0, 0, width, height);
      return new Promise(resolve => canvas.toBlob(resolve, "image/jpeg", QUALITY));
    },
  };
  return view;
}

/** The cameras of this machine; known once one of them was allowed. */
export async function cameras() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.filter(({ kind, deviceId: id }) => kind === "videoinput" && id !== "");
}

/** Use another camera, in all views. */
export async function useCamera(id) {
  const restarted = [...views];
  for (const view of restarted) view.stop();
  deviceId = id;
  await Promise.all(restarted.map(view => view.start()));
}

async function open() {
  if (!navigator.mediaDevices) {
    throw new Error("Browsers allow the camera only on this machine or over HTTPS. Open this page as " +
      `http://localhost:${location.port}, or choose image files.`);
  }
  const video = { width: { ideal: MAX_SIDE }, ...(deviceId && { deviceId: { exact: deviceId } }) };
  return navigator.mediaDevices.getUserMedia({ video, audio: false });
}

/** Switch the camera off when no view needs it. */
function release() {
  if (views.size || opening === null) return;
  const ended = opening;
  opening = null;
  ended.then(stream => { for (const track of stream.getTracks()) track.stop(); }, () => {});
}

function reason(error) {
  return {
    NotAllowedError:
      "The browser does not let this page use the camera. Allow it beside the address, then select Camera again.",
    NotFoundError: "There is no camera. Connect one, or choose image files.",
    OverconstrainedError: "This camera is not there any more. Choose another, or choose image files.",
    NotReadableError:
      "The camera cannot be opened; another program may be using it. Close that program, then select Camera again.",
  }[error.name] ?? error.message;
}

/** A function that is told of events, and gives how many there are a second. */
export function meter() {
  let times = [];
  return () => {
    const now = performance.now();
    times = [...times.filter(time => now - time < RATE_MILLISECONDS), now];
    return times.length < 2 ? 0 : 1000 * (times.length - 1) / (now - times[0]);
  };
}
