# The server for one exported model, on the base install: no PyTorch. docs/serving.md says how to run it.
#
#   docker build --tag foveola .
#   docker run --rm --read-only --publish 127.0.0.1:8000:8000 --volume "$PWD/runs/mnist-fast/exports:/model:ro" foveola

FROM python:3.12-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src src
RUN python -m venv /opt/foveola && /opt/foveola/bin/pip install --no-cache-dir --constraint constraints.txt .

FROM python:3.12-slim-bookworm
COPY --from=build /opt/foveola /opt/foveola
ENV PATH=/opt/foveola/bin:$PATH PYTHONUNBUFFERED=1
# A number, so that Kubernetes can see that it is not root
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=3s --start-period=10s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=2)"]
ENTRYPOINT ["foveola", "serve"]
CMD ["/model/model.onnx", "--host", "0.0.0.0"]
