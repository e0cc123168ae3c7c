# docker build -f launch/tpu.Dockerfile -t palette-jax:tpu .
# docker run --rm --privileged --user=root --net=host palette-jax:tpu python main.py ...
FROM python:3.12-slim

RUN useradd --create-home --uid 1000 palette
WORKDIR /home/palette/palette_jax
COPY --chown=palette . .
# libtpu comes with jax[tpu]; k8s lets JAX find the other processes on GKE.
RUN pip install --no-cache-dir -c requirements.txt -e ".[train,tpu]" "jax[k8s]"
USER palette
CMD ["python", "main.py", "--help"]
