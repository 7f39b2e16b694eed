"""One training by several processes, started by torchrun, on one machine or several.

Every process holds all the data and draws the same batches; each computes a part of every batch, and the sum of their
gradients is that of the batch. PyTorch's DistributedDataParallel is not used: it would average means over parts of
unequal sizes, where the sum of sums is exact, and one buffer for the gradients has room for the metrics, too.
"""

import atexit
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from foveola.errors import Failure, FoveolaError, ProcessLost, UserError
from foveola.images import Images
from foveola.models.batch_part import BatchPart, connected, sum_over_processes
from foveola.models.classifier import Classifier
from foveola.training.stopping import StopSignals

# How long one process waits for the others, which may be reading data or measuring. A process that has ended is noticed
# at once, because its connections close.
_PATIENCE = timedelta(hours=1)
_SECONDS_FOR_A_MESSAGE = 0.5
# On a GPU, of `Processes.agree_to_stop`
_STEPS_BETWEEN_QUESTIONS = 20


class Processes:
    """The processes of a training, and which of them this is: 0, which writes and prints, or another one."""

    def __init__(self, rank: int = 0, size: int = 1, steps_between_questions: int = 1) -> None:
        self.rank, self.size = rank, size
        self.steps_between_questions = steps_between_questions

    @property
    def leads(self) -> bool:
        """Whether this process writes the run and prints."""
        return self.rank == 0

    @property
    def first_on_machine(self) -> bool:
        return self.size == 1 or os.environ.get("LOCAL_RANK", "0") == "0"

    def part(self, images: int) -> BatchPart:
        """The images that this process computes, of a batch of so many."""
        rank, size = self.rank, self.size
        return BatchPart(images, slice(images * rank // size, images * (rank + 1) // size))

    def sum_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over the processes, in one buffer."""
        buffer = torch.cat([tensor.flatten() for tensor in tensors])
        sum_over_processes(buffer)
        for tensor, part in zip(tensors, buffer.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def predict_logits(self, classifier: Classifier, images: Images) -> NDArray[np.float32]:
        """Logits, float32 N×K, as of `Classifier.predict_logits`, by all processes: each computes whole batches."""
        if self.size == 1:
            return classifier.predict_logits(images)
        size = classifier.inference_batch
        batches = -(-len(images) // size)
        ends = [min(size * (batches * rank // self.size), len(images)) for rank in range(self.size + 1)]
        own = images[ends[self.rank] : ends[self.rank + 1]]
        longest = max(np.diff(ends))
        padded = torch.zeros(int(longest), len(classifier.class_names))
        if len(own):
            padded[: len(own)] = torch.from_numpy(classifier.predict_logits(own))
        parts = self._gather(padded)
        return torch.cat([part[:count] for part, count in zip(parts, np.diff(ends), strict=True)]).numpy()

    def from_leader(self, content: bytes | None) -> bytes | None:
        """What process 0 gives, in all processes."""
        if self.size == 1:
            return content
        length = torch.tensor(-1 if content is None or not self.leads else len(content))
        self._broadcast(length)
        if length < 0:
            return None
        data = torch.empty(int(length), dtype=torch.uint8)
        if content is not None and self.leads:
            data = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else data
        self._broadcast(data)
        return data.numpy().tobytes()

    def gather_texts(self, text: str) -> list[str]:
        """The texts of all processes, by rank."""
        if self.size == 1:
            return [text]
        content = text.encode()
        lengths = self._gather(torch.tensor([len(content)]))
        padded = torch.zeros(int(max(lengths)), dtype=torch.uint8)
        padded[: len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else 0
        parts = self._gather(padded)
        return [part[: int(length)].numpy().tobytes().decode() for part, length in zip(parts, lengths, strict=True)]

    @torch.no_grad()
    def synchronize(self, tensors: Sequence[Tensor]) -> None:
        """Copy process 0's tensors to all processes."""
        if self.size > 1:
            for tensor in tensors:
                self._broadcast(tensor)

    def agree_to_stop(self, signals: StopSignals | None, step: int = 0) -> bool:
        """Whether a signal asks one of the processes to end; then all note one.

        Asked after every step, and answered after every one on a CPU, where asking takes a hundredth of a step. On a
        GPU, which works ahead meanwhile, only after some.
        """
        noted = signals is not None and signals.noted is not None
        if self.size == 1 or signals is None or step % self.steps_between_questions:
            return noted and self.size == 1
        sum_over_processes(count := torch.tensor(float(noted)))
        if count > 0 and not noted:
            signals.noted = signal.SIGTERM
        return bool(count > 0)

    @contextmanager
    def together(self) -> Iterator[None]:
        """End all processes if the block fails in one of them. Inside, the processes must not communicate.

        Raises
        ------
        Exception
            In process 0: its own error, or that of the first process that failed. In all others, SystemExit with the
            same exit code, unless it is an error that nobody has foreseen.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        if self.size == 1:
            if failure is not None:
                raise failure
            return
        code = 0 if failure is None else getattr(failure, "exit_code", 1)
        answers = [text.partition(" ") for text in self.gather_texts(f"{code} {failure}")]
        first = next((rank for rank, (code, _, _) in enumerate(answers) if code != "0"), None)
        if first is None:
            return
        if failure is not None and (self.leads or not isinstance(failure, FoveolaError)):
            raise failure
        code, _, message = answers[first]
        if self.leads:
            raise (UserError if code == "2" else Failure)(f"In process {first} of {self.size}: {message}")
        _end_after_process_0(int(code))

    @contextmanager
    def silent_but_one(self) -> Iterator[None]:
        """Leave it to process 0 to report an error that ends all processes; the others end with its exit code."""
        try:
            yield
        except FoveolaError as error:
            if self.leads:
                raise
            _end_after_process_0(error.exit_code)

    def check_same(self, values: Mapping[str, object]) -> None:
        """Refuse a training whose processes differ in one of these values.

        Raises
        ------
        UserError
            In process 0; in all others, SystemExit.
        """
        everywhere = [json.loads(text) for text in self.gather_texts(json.dumps(values))]
        with self.together():
            for rank, other in enumerate(everywhere):
                for name, value in values.items():
                    if self.leads and other.get(name) != value:
                        raise UserError(
                            f"The processes of a training must agree, but process {rank} of {self.size} has another "
                            f"{name} than process 0: {other.get(name)} instead of {value}. Give all of them the same."
                        )

    def _broadcast(self, tensor: Tensor) -> None:
        with connected():
            dist.broadcast(tensor, 0)

    def _gather(self, tensor: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        with connected():
            dist.all_gather(parts, tensor)
        return parts


ALONE = Processes()


def join(device: torch.device) -> Processes:
    """Join the other processes that torchrun has started for this training; `ALONE` if there are none.

    Parameters
    ----------
    device : where this process computes; of several GPUs it takes the one with its number on this machine

    Raises
    ------
    UserError
        If there are fewer GPUs than processes.
    ProcessLost
        If the others cannot be reached.
    """
    if "RANK" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
        return ALONE
    if device.type == "cuda":
        number = int(os.environ.get("LOCAL_RANK", "0"))
        if number >= torch.cuda.device_count():
            raise UserError(
                f"There are more processes on this machine than GPUs ({torch.cuda.device_count()}), and each needs one "
                f"of its own. Give torchrun --nproc-per-node {torch.cuda.device_count()}, or train with --device cpu."
            )
        torch.cuda.set_device(number)
    if not dist.is_initialized():
        try:
            store, rank, size = next(rendezvous("env://", timeout=_PATIENCE))
            # After a restart, torchrun's store still has the addresses of the processes before it
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store = dist.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined]
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise ProcessLost(
                f"The other processes of this training cannot be reached: {str(error).strip()}. Start all of them with "
                f"torchrun and the same --rdzv-endpoint, on machines that reach each other."
            ) from None
        atexit.register(_leave)
    between = _STEPS_BETWEEN_QUESTIONS if device.type == "cuda" else 1
    return Processes(dist.get_rank(), dist.get_world_size(), between)


def _end_after_process_0(code: int) -> NoReturn:
    """End this process, but not before process 0 can have printed why: torchrun ends all as soon as one has ended."""
    time.sleep(_SECONDS_FOR_A_MESSAGE)
    raise SystemExit(code)


def leads() -> bool:
    """Whether this process is the one that writes and prints: process 0, or the only one."""
    return not dist.is_initialized() or dist.get_rank() == 0


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
