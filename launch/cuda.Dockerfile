# docker build -f launch/cuda.Dockerfile -t palette-jax:cuda .
# docker run --rm --gpus=all palette-jax:cuda python main.py ...
FROM python:3.12-slim

RUN useradd --create-home --uid 1000 palette
WORKDIR /home/palette/palette_jax
COPY --chown=palette . .
# CUDA comes with jax[cuda12]; of the machine only its driver is needed.
RUN pip install --no-cache-dir -c requirements.txt -e ".[train,gpu]" "jax[k8s]"
USER palette
CMD ["python", "main.py", "--help"]
