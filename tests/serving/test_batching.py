"""Batches: none swapped, none lost, never more than fit; an answer does not depend on its neighbours."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from foveola.errors import DataError
from foveola.exports import onnx
from foveola.images import ImageSet
from foveola.serving import batching
from foveola.serving.batching import SIZES, Batcher
from foveola.serving.refusals import Busy, Refused

SHAPES = ((1, 2, 1), (2, 1, 1), (1, 2, 3))


class Model:
    """Answers an image with its number, and its batch with how many images were in it; may be held."""

    def __init__(self) -> None:
        self.batches: list[np.ndarray] = []
        self.free = threading.Event()
        self.free.set()
        self.calls = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.calls += 1
        assert self.free.wait(30)
        self.batches.append(images)
        numbers = number_of(images)
        if 13 in numbers:
            raise ValueError("13 is unlucky")
        return np.stack([numbers, np.full(len(images), len(images))], axis=1).astype(np.float32)

    @property
    def sizes(self) -> list[int]:
        return list(map(len, self.batches))


def numbered(first: int, count: int, shape: tuple[int, ...] = SHAPES[0]) -> np.ndarray:
    """Images that hold the numbers from `first` on."""
    images = np.zeros((count, *shape), np.uint8)
    numbers = np.arange(first, first + count)
    flat = images.reshape(count, int(np.prod(shape)))
    flat[:, 0], flat[:, 1] = numbers // 256, numbers % 256
    return images


def number_of(images: np.ndarray) -> np.ndarray:
    flat = images.reshape(len(images), -1).astype(int)
    return flat[:, 0] * 256 + flat[:, 1]


async def ticks(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


requests = st.lists(
    st.tuples(
        st.integers(1, 100),  # images
        st.sampled_from(SHAPES),
        st.integers(0, 20),  # ticks before it is submitted
        st.one_of(st.none(), st.integers(0, 20)),  # ticks before it is cancelled
    ),
    max_size=30,
)


@hypothesis_settings(deadline=None, max_examples=100)
@given(
    requests=requests,
    capacity=st.integers(1, 150),
    sizes=st.sampled_from([SIZES, (1, 3), (1,)]),
    at_once_seconds=st.sampled_from([0.0, 100.0]),
)
def test_none_is_swapped_none_lost_and_the_capacity_holds(requests, capacity, sizes, at_once_seconds):
    model = Model()

    async def ask(batcher, first, count, shape, before):
        await ticks(before)
        images = numbered(first, count, shape)
        full = batcher.queued + count > capacity
        try:
            answer = await batcher.submit(images)
        except DataError:
            assert count > capacity
        except Busy:
            assert full
        else:
            assert answer.shape == (count, 2)
            assert answer[:, 0].tolist() == list(range(first, first + count))
            assert set(answer[:, 1]) <= set(sizes)
        finally:
            assert 0 <= batcher.queued <= capacity

    async def cancel(task, after):
        await ticks(after)
        task.cancel()

    async def scene():
        async with Batcher(model, capacity, sizes, at_once_seconds) as batcher:
            tasks, first = [], 14
            for count, shape, before, cancelled in requests:
                task = asyncio.create_task(ask(batcher, first, count, shape, before))
                tasks += [task] if cancelled is None else [task, asyncio.create_task(cancel(task, before + cancelled))]
                first += count
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                assert outcome is None or isinstance(outcome, asyncio.CancelledError), outcome
            assert batcher.queued == 0

    asyncio.run(scene())
    assert {len(batch) for batch in model.batches} <= set(sizes)


def test_what_waits_goes_together():
    model = Model()

    async def scene():
        async with Batcher(model, 100, at_once_seconds=0.0) as batcher:
            model.free.clear()
            first = asyncio.create_task(batcher.submit(numbered(20, 1)))
            await ticks(5)
            rest = [asyncio.create_task(batcher.submit(numbered(30 + number, 1))) for number in range(10)]
            await until(lambda: batcher.queued == 10)
            model.free.set()
            await asyncio.gather(first, *rest)

    asyncio.run(scene())
    assert model.sizes == [1, 8, 2]


@pytest.mark.parametrize(("at_once_seconds", "threads"), [(0.0, {"model"}), (1.0, {"MainThread", "model"})])
def test_what_is_quick_is_answered_at_once_in_the_event_loop(at_once_seconds, threads):
    """All but the first batch, before which nobody knows how quick the model is."""
    found = []

    def model(images):
        found.append(threading.current_thread().name.partition("_")[0])
        return np.zeros((len(images), 2), np.float32)

    async def scene():
        async with Batcher(model, 100, at_once_seconds=at_once_seconds) as batcher:
            await batcher.submit(numbered(20, 3))
            for _ in range(4):
                await batcher.submit(numbered(20, 3))

    asyncio.run(scene())
    assert set(found) == threads
    assert found[0] == "model"


def test_a_long_request_does_not_hold_up_short_ones():
    model = Model()

    async def scene():
        async with Batcher(model, 300, at_once_seconds=0.0) as batcher:
            model.free.clear()
            long = asyncio.create_task(batcher.submit(numbered(1000, 264)))
            await until(lambda: batcher.queued == 200)  # the first 64 are with the model
            short = [asyncio.create_task(batcher.submit(numbered(20 + number, 1))) for number in range(40)]
            await until(lambda: batcher.queued == 240)
            model.free.set()
            answers = await asyncio.gather(*short)
            assert not long.done()
            assert number_of(model.batches[1]).tolist().count(0) == 0
            assert [answer[0, 0] for answer in answers] == list(range(20, 60))
            assert (await long)[:, 0].tolist() == list(range(1000, 1264))

    asyncio.run(scene())
    assert set(range(20, 60)) <= set(number_of(model.batches[1]).tolist())


def test_large_images_go_in_small_batches(monkeypatch):
    monkeypatch.setattr(batching, "MOST_BYTES_IN_BATCH", 20)
    model = Model()

    async def scene():
        async with Batcher(model, 100, at_once_seconds=0.0) as batcher:
            await batcher.submit(numbered(20, 20, (1, 4, 1)))
            await batcher.submit(numbered(20, 2, (8, 8, 1)))

    asyncio.run(scene())
    assert [batch.shape for batch in model.batches] == [(4, 1, 4, 1)] * 5 + [(1, 8, 8, 1)] * 2


def test_full_means_busy_and_who_gives_up_makes_room():
    model = Model()

    async def scene():
        async with Batcher(model, 4, at_once_seconds=0.0) as batcher:
            model.free.clear()
            first = asyncio.create_task(batcher.submit(numbered(20, 1)))
            await ticks(5)
            waiting = asyncio.create_task(batcher.submit(numbered(30, 4)))
            await ticks(5)
            assert batcher.queued == 4
            with pytest.raises(Busy, match="4 images wait"):
                await batcher.submit(numbered(40, 1))
            waiting.cancel()
            await ticks(2)
            assert batcher.queued == 0
            last = asyncio.create_task(batcher.submit(numbered(50, 4)))
            await ticks(2)
            model.free.set()
            assert (await first)[0, 0] == 20
            assert (await last)[:, 0].tolist() == [50, 51, 52, 53]
            assert waiting.cancelled()

    asyncio.run(scene())
    assert model.sizes == [1, 4]


def test_pixels_are_bounded_too(monkeypatch):
    monkeypatch.setattr(batching, "MOST_BYTES_WAITING", 100)
    model = Model()

    async def scene():
        async with Batcher(model, 1000, at_once_seconds=0.0) as batcher:
            with pytest.raises(DataError, match="at most"):
                await batcher.submit(numbered(20, 51))
            model.free.clear()
            first = asyncio.create_task(batcher.submit(numbered(20, 32)))
            await ticks(5)
            second = asyncio.create_task(batcher.submit(numbered(20, 50)))
            await ticks(5)
            with pytest.raises(Busy):
                await batcher.submit(numbered(20, 1))
            model.free.set()
            await asyncio.gather(first, second)

    asyncio.run(scene())


@pytest.mark.parametrize("count", [0, 5])
def test_what_can_never_fit_is_the_senders_fault(count):
    async def scene():
        async with Batcher(Model(), 4, at_once_seconds=0.0) as batcher:
            with pytest.raises(DataError, match=f"has {count} images.*1 to 4"):
                await batcher.submit(numbered(20, count))

    asyncio.run(scene())


def test_a_failure_of_the_model_reaches_its_own_batch_alone():
    model = Model()

    async def scene():
        async with Batcher(model, 200, at_once_seconds=0.0) as batcher:
            model.free.clear()
            before = asyncio.create_task(batcher.submit(numbered(20, 1)))
            await ticks(5)
            neighbour = asyncio.create_task(batcher.submit(numbered(30, 1)))
            unlucky = asyncio.create_task(batcher.submit(numbered(13, 100)))
            other_size = asyncio.create_task(batcher.submit(numbered(40, 1, SHAPES[1])))
            await until(lambda: batcher.queued == 102)
            model.free.set()
            assert (await before)[0, 0] == 20
            for task in (neighbour, unlucky):
                with pytest.raises(ValueError, match="unlucky"):
                    await task
            assert (await other_size)[0, 0] == 40
            assert (await batcher.submit(numbered(50, 1)))[0, 0] == 50
            assert batcher.queued == 0

    asyncio.run(scene())


def test_a_model_that_gives_too_many_answers_is_found_out():
    async def scene():
        async with Batcher(lambda images: np.zeros((2, 3), np.float32), 4) as batcher:
            with pytest.raises(RuntimeError, match="2 rows of logits for 1 images"):
                await batcher.submit(numbered(20, 1))

    asyncio.run(scene())


def test_the_end_answers_what_was_accepted_and_accepts_no_more():
    model = Model()

    async def scene():
        async with Batcher(model, 200, at_once_seconds=0.0) as batcher:
            model.free.clear()
            accepted = [asyncio.create_task(batcher.submit(numbered(20 + number, 1))) for number in range(100)]
            await ticks(5)
            end = asyncio.create_task(batcher.stop())
            await ticks(5)
            with pytest.raises(Busy, match="end"):
                await batcher.submit(numbered(20, 1))
            model.free.set()
            await end
            assert all(task.done() for task in accepted)
            assert [(await task)[0, 0] for task in accepted] == list(range(20, 120))

    asyncio.run(scene())


def test_every_batch_is_told():
    told = []

    async def scene():
        async with Batcher(Model(), 100, on_batch=lambda *batch: told.append(batch)) as batcher:
            await batcher.submit(numbered(20, 67))

    asyncio.run(scene())
    assert [size for size, _ in told] == [64, 2, 1]
    assert all(seconds > 0 for _, seconds in told)


def test_requests_that_arrive_together_share_a_batch_in_the_event_loop():
    model = Model()

    async def scene():
        async with Batcher(model, 100, at_once_seconds=100.0) as batcher:
            await batcher.submit(numbered(20, 1))  # how long the model takes is not known before
            model.batches.clear()
            answers = await asyncio.gather(*(batcher.submit(numbered(number, 1)) for number in (30, 40, 50, 60)))
            assert [answer[0, 0] for answer in answers] == [30, 40, 50, 60]

    asyncio.run(scene())
    assert model.sizes == [4]


def test_what_remains_of_a_quick_batch_is_no_work_for_the_thread():
    """Each handing over costs the event loop milliseconds, and whatever comes meanwhile would follow it."""
    found: list[str] = []

    def model(images):
        found.append(threading.current_thread().name)
        return number_of(images)[:, None].astype(np.float32)

    async def ask() -> None:
        async with Batcher(model, 1000, at_once_seconds=1.0) as batcher:

            async def late(number: int) -> np.ndarray:
                await ticks(number // 3)  # three become batches of 2 and 1, while the next three arrive
                return await batcher.submit(numbered(number, 1))

            await batcher.submit(numbered(0, 1))  # measures the model, in the thread
            found.clear()
            answers = await asyncio.gather(*map(late, range(30)))
            assert [answer.item() for answer in answers] == list(range(30))

    asyncio.run(ask())
    assert set(found) == {"MainThread"}


def test_what_has_come_behind_a_batch_in_the_thread_returns_to_the_event_loop_if_it_is_quick():
    model, found = Model(), []

    def watched(images):
        found.append(threading.current_thread().name.partition("_")[0])
        return model(images)

    async def ask() -> None:
        async with Batcher(watched, 100, at_once_seconds=1.0) as batcher:
            model.free.clear()
            first = asyncio.create_task(batcher.submit(numbered(20, 1)))  # not measured yet, and so in the thread
            await until(lambda: model.calls == 1)
            others = [asyncio.create_task(batcher.submit(numbered(number, 1))) for number in range(30, 37)]
            await ticks(3)
            model.free.set()
            answers = await asyncio.gather(first, *others)
            assert [answer[0, 0] for answer in answers] == [20, *range(30, 37)]

    asyncio.run(ask())
    assert found == ["model", "MainThread", "MainThread", "MainThread"]  # of 1, then of 4, 2 and 1


def test_nothing_is_computed_in_the_event_loop_while_the_thread_has_a_batch():
    model = Model()

    async def scene():
        async with Batcher(model, 100, at_once_seconds=100.0) as batcher:
            model.free.clear()
            first = asyncio.create_task(batcher.submit(numbered(20, 2)))  # not measured yet, and so in the thread
            await until(lambda: model.calls == 1)
            second = asyncio.create_task(batcher.submit(numbered(30, 1)))
            await ticks(5)
            assert batcher.queued == 1
            model.free.set()
            assert [answer[0, 0] for answer in await asyncio.gather(first, second)] == [20, 30]

    asyncio.run(scene())
    assert model.sizes == [2, 1]


def test_model_time_is_bounded_for_a_request_and_for_all_that_wait(monkeypatch):
    """What the model takes is measured; a request for more than ten seconds of it is refused with what is possible."""
    model = Model()

    async def scene():
        async with Batcher(model, 256) as batcher:
            await batcher.submit(numbered(20, 1))
            monkeypatch.setattr(batcher, "_seconds_an_image", lambda size: 0.1)
            with pytest.raises(Refused, match="about 20 s for these 200 images; at most 10 s") as refused:
                await batcher.submit(numbered(30, 200))
            assert refused.value.status == 413
            model.free.clear()
            waiting = [asyncio.create_task(batcher.submit(numbered(30, 60))) for _ in range(2)]
            await ticks(5)
            with pytest.raises(Busy):
                await waiting[1]
            model.free.set()
            assert (await waiting[0]).shape == (60, 2)

    asyncio.run(scene())


def test_the_time_of_a_model_is_estimated_from_the_nearest_size():
    async def scene():
        batcher = Batcher(lambda images: np.zeros((len(images), 2), np.float32), 100)
        assert batcher._seconds_an_image(64) is None
        batcher._times[(64).bit_length()].extend([0.5, 0.25, 1.0])
        assert batcher._seconds_an_image(64) == batcher._seconds_an_image(127) == 0.25
        assert batcher._seconds_an_image(128) == 0.5  # twice as large
        assert batcher._seconds_an_image(1) == 0.25  # a model that resizes takes as long for small images

    asyncio.run(scene())


@pytest.mark.parametrize("recipe", ["fast", "lenet5", "west", "mlp", "strong"])
def test_with_a_real_model_an_answer_is_the_same_to_the_bit_alone_and_in_company(recipe: str, tmp_path: Path):
    model = exported(recipe, tmp_path)
    images = np.random.default_rng(1).integers(0, 256, (64, 28, 28, 1), dtype=np.uint8)

    async def scene():
        async with Batcher(model.predict_logits, 256) as batcher:
            alone = np.concatenate([await batcher.submit(images[place : place + 1]) for place in range(64)])
            for count in (2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64):
                for start in (0, 64 - count):
                    answer = await batcher.submit(images[start : start + count])
                    np.testing.assert_array_equal(answer, alone[start : start + count])
            company = await asyncio.gather(*(batcher.submit(images[place : place + 1]) for place in range(63, -1, -1)))
            np.testing.assert_array_equal(np.concatenate(company[::-1]), alone)

    asyncio.run(scene())


def exported(recipe: str, folder: Path) -> onnx.OnnxModel:
    """An untrained network of a recipe as an export."""
    from foveola.recipe import load_recipe
    from foveola.training.build import build_classifier

    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28, 1), dtype=np.uint8)
    data = ImageSet(images, np.arange(30) % 10, tuple("abcdefghij"))
    classifier = build_classifier(load_recipe(recipe, {}), data, seed=0).eval()
    classifier.save(folder / "model.safetensors")
    onnx.write(folder / "model.safetensors", classifier, folder / "model.onnx")
    return onnx.open(folder / "model.onnx", threads=1)
