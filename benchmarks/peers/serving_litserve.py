"""Serve the same model with LitServe, with batching.

.venv-peers-serving/bin/python benchmarks/peers/serving_litserve.py MODEL PORT
"""

import json
import os
import sys

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # otherwise ONNX Runtime sends telemetry

import litserve
import numpy as np
import onnxruntime


class Api(litserve.LitAPI):
    """The model as a LitServe API: set up, decode, predict, encode."""

    def setup(self, device: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(self.model, options, providers=["CPUExecutionProvider"])
        self.names = json.loads(self.session.get_modelmeta().custom_metadata_map["foveola"])["class_names"]

    def decode_request(self, request: list[list[int]]) -> np.ndarray:
        return np.array(request, np.uint8)[:, :, None]

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, images: np.ndarray) -> np.ndarray:
        (logits,) = self.session.run(["logits"], {"images": images})
        exponentials = np.exp(logits.astype(float) - logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict:
        order = np.argsort(-output)
        top = [{"class": self.names[place], "probability": float(output[place])} for place in order]
        return {"predictions": [top[0] | {"top": top}]}


def main() -> None:
    # 20 ms was the best of the timeouts tried: 1, 5 and 20 ms
    api = Api(max_batch_size=64, batch_timeout=0.02)
    api.model = sys.argv[1]
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=60)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
