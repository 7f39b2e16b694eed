"""Serve the same model with FastAPI, as in its tutorial: inference for one request at a time.

    .venv-peers-serving/bin/python benchmarks/peers/serving_fastapi.py MODEL PORT

The endpoint is `async`: inference runs in the event loop, which on one core is faster than a thread for each request.
"""

import json
import os
import sys

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # otherwise ONNX Runtime sends telemetry

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI


def main() -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    names = json.loads(session.get_modelmeta().custom_metadata_map["foveola"])["class_names"]
    app = FastAPI()

    @app.post("/predict")
    async def predict(pixels: list[list[int]]) -> dict:
        (logits,) = session.run(["logits"], {"images": np.array(pixels, np.uint8)[None, :, :, None]})
        exponentials = np.exp(logits[0].astype(float) - logits[0].max())
        probabilities = exponentials / exponentials.sum()
        order = np.argsort(-probabilities)
        top = [{"class": names[place], "probability": float(probabilities[place])} for place in order]
        return {"predictions": [top[0] | {"top": top}]}

    uvicorn.run(app, port=int(sys.argv[2]), loop="uvloop", http="httptools", access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
