"""The process of the peer: diffusers' `UNet2DModel`, in PyTorch's own environment.

It reads commands from standard input, one JSON object per line, and answers each with
one. `python -m benchmarks.peers` starts it; it imports nothing of this project.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import diffusers
import torch

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def make_network(spec: dict[str, Any]) -> torch.nn.Module:
    """Builds the network with these widths, depths and attention; 6 channels to 3."""
    attends, widths = spec["attends"], spec["widths"]
    down = ["AttnDownBlock2D" if a else "ResnetDownsampleBlock2D" for a in attends]
    up = ["AttnUpBlock2D" if a else "ResnetUpsampleBlock2D" for a in attends[::-1]]
    return diffusers.UNet2DModel(
        sample_size=spec["image_size"],
        in_channels=6,
        out_channels=3,
        block_out_channels=tuple(widths),
        layers_per_block=spec["num_res_blocks"],
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        downsample_type="resnet",
        upsample_type="resnet",
        resnet_time_scale_shift="scale_shift",
        attention_head_dim=spec["head_features"],
        norm_num_groups=math.gcd(spec["norm_groups"], *widths),
    )


class Peer:
    """A network with its optimizer, its data and the timed steps."""

    def __init__(self, spec: dict[str, Any], *, dtype: str, compiled: bool) -> None:
        """Builds everything on the accelerator if there is one."""
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        torch.manual_seed(0)
        layout: Any = torch.channels_last
        self.network = make_network(spec).to(self.device, memory_format=layout)
        self.params = list(self.network.parameters())
        self.average = [param.detach().clone() for param in self.params]
        self.optimizer = torch.optim.Adam(self.params, lr=1e-4, fused=True)
        self.autocast = torch.autocast(
            self.device, _DTYPES[dtype], enabled=dtype != "float32"
        )
        self.call: Callable = self.network
        if compiled:
            self.call = torch.compile(self.network)
        shape = (spec["batch_size"], 3, spec["image_size"], spec["image_size"])
        self.y = torch.randint(0, 256, shape, dtype=torch.uint8, device=self.device)
        self.x = self.y.flip(0)
        self.levels = torch.rand(shape[0], device=self.device)
        self.y_t = torch.randn(shape, device=self.device)

    def _predict(self, x: Any, y_t: Any, levels: Any) -> Any:
        h = torch.cat([x, y_t], 1).contiguous(memory_format=torch.channels_last)
        with self.autocast:
            return self.call(h, levels * 1000).sample.float()

    def train_step(self) -> None:
        """Noise, gradients, clipping, Adam, moving average, as in our step."""
        y, x = self.y.float() / 127.5 - 1, self.x.float() / 127.5 - 1
        gamma = self.levels[:, None, None, None]
        noise = torch.randn_like(y)
        y_t = gamma.sqrt() * y + (1 - gamma).sqrt() * noise
        loss = (self._predict(x, y_t, self.levels) - noise).square().mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        self.optimizer.step()
        torch._foreach_lerp_(self.average, self.params, 1e-3)

    @torch.no_grad()
    def sample_step(self) -> None:
        """One evaluation of the network and a step of DDIM."""
        x = self.x.float() / 127.5 - 1
        eps = self._predict(x, self.y_t, self.levels)
        y_0 = (1.1 * self.y_t - 0.4 * eps).clamp(-1, 1)
        self.y_t = 0.5 * self.y_t + 0.5 * y_0

    def time(self, step: str, count: int) -> dict[str, Any]:
        """Runs a step `count` times; returns wall time and CPU time in seconds."""
        function = getattr(self, f"{step}_step")
        if step == "sample":
            self.network.eval()
        else:
            self.network.train()
        seconds, cpu_seconds = [], []
        for _ in range(count):
            self._wait()
            wall, cpu = time.perf_counter(), time.process_time()
            function()
            self._wait()
            seconds.append(time.perf_counter() - wall)
            cpu_seconds.append(time.process_time() - cpu)
        return {"seconds": seconds, "cpu_seconds": cpu_seconds}

    def profile(self, count: int) -> dict[str, float]:
        """Returns the seconds of each operation in a training step."""
        self.network.train()
        self.train_step()
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU]
        ) as trace:
            for _ in range(count):
                self.train_step()
        return {
            event.key: event.self_cpu_time_total / 1e6 / count
            for event in trace.key_averages()
        }

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def describe(self) -> dict[str, Any]:
        """Returns versions, the device and the number of parameters."""
        on_gpu = self.device == "cuda"
        return {
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "device": torch.cuda.get_device_name() if on_gpu else "cpu",
            "threads": torch.get_num_threads(),
            "parameters": sum(param.numel() for param in self.params),
        }


def main() -> None:
    """Answers until the input ends."""
    peer: Any = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if command["do"] == "build":
                peer = None
                peer = Peer(
                    command["spec"],
                    dtype=command["dtype"],
                    compiled=command["compiled"],
                )
                answer = peer.describe()
            elif command["do"] == "profile":
                answer = peer.profile(command["count"])
            else:
                answer = peer.time(command["step"], command["count"])
        except Exception as error:
            # A variant that does not run is a result too.
            answer = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
