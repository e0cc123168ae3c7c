"""Installs palette_jax; requirements.txt holds the versions it is tested with."""

import setuptools

# On Linux, TensorFlow's plain wheel carries its CUDA code: twice the download for
# a library that only reads pictures here and is kept off the accelerator.
_LINUX = "platform_system == 'Linux' and platform_machine == 'x86_64'"
_NOT_LINUX = "platform_system != 'Linux' or platform_machine != 'x86_64'"

_JAX = ">=0.10,<0.12"

INSTALL_REQUIRES = [
    "absl-py>=2.1,<3",
    "etils[epath]>=1.14,<2",
    "flax>=0.12.8,<0.13",
    f"jax{_JAX}",
    "jaxtyping>=0.3.5,<0.4",
    "ml-collections>=1.1,<2",
    "numpy>=2.1,<3",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12.8,<0.13",
    "packaging>=24,<27",
    "pillow>=11,<13",  # gradio, in the extra `demo`, does not take 13 yet.
    "rich>=13,<16",
    "safetensors>=0.5,<1",
]

EVAL = [
    "jinja2>=3.1,<4",
    "matplotlib>=3.10,<4",
    "scikit-image>=0.25,<0.27",  # Also ships five of the photographs of `tiny`.
    "scipy>=1.14,<2",
]

EXTRAS_REQUIRE = {
    "gpu": [f"jax[cuda12]{_JAX}"],
    "tpu": [f"jax[tpu]{_JAX}"],
    "train": [
        *EVAL,
        "array_record>=0.8.6,<0.9; platform_system != 'Windows'",
        "clu>=0.0.12,<0.1",
        "importlib_resources>=6,<8",  # tensorflow-datasets does not ask for it.
        "scikit-learn>=1.6,<2",  # Ships the other two photographs of `tiny`.
        "tensorboard>=2.20,<3",  # clu's writers need it and do not ask for it.
        f"tensorflow>=2.21,<2.23; {_NOT_LINUX}",
        f"tensorflow-cpu>=2.21,<2.23; {_LINUX}",
        "tensorflow-datasets>=4.9.10,<5",
    ],
    "demo": ["gradio>=6.20,<7"],
    "eval": EVAL,
    "heic": ["pillow-heif>=1,<2"],  # Reads the photographs of telephones.
    "dev": [
        "beartype>=0.22,<0.24",
        "kubeflow-trainer-api>=2.3,<3",  # The published API of JobSet.
        "playwright>=1.60,<2",  # With the machine's own Chromium.
        "pyrefly>=1.4,<2",
        "pytest>=9,<10",
        "pytest-xdist>=3.8,<4",
        "ruff>=0.17,<0.18",
        "setuptools>=77,<85",
        "uv>=0.9,<1",
    ],
}

setuptools.setup(
    name="palette-jax",
    version="0.1.0",
    description="Palette image-to-image diffusion models in JAX and Flax.",
    author="The palette_jax authors",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=setuptools.find_packages(include=["palette_jax", "palette_jax.*"]),
    package_data={
        "palette_jax": ["weights/*"],  # Safetensors, and what they were trained on.
        "palette_jax.page": ["*.html", "*.css", "*.js"],
        "palette_jax.evaluation": ["report.css", "report.html"],
        "palette_jax.study": ["study.html"],
    },
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    entry_points={"console_scripts": ["palette-jax = palette_jax.__main__:main"]},
)
