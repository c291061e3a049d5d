import pytest
import torch
import torchvision.transforms.functional as TF
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor
from torchvision.transforms import InterpolationMode

from lightning_modules.data import augment
from lightning_modules.data.augment import IDENTITY, Augmentation, Draws, to_float


def random_images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=Generator().manual_seed(seed))


def torchvision_one_by_one(augmentation: Augmentation, images: Tensor, draws: Draws) -> Tensor:
    """Every step by torchvision, image by image; an alpha channel's colours apart from its alpha."""
    height, width = images.shape[-2:]
    augmented = []
    for i, image in enumerate(images):
        fill = {"black": "constant", "reflect": "reflect"}[augmentation.crop_fill]
        padded = TF.pad(TF.convert_image_dtype(image), [augmentation.crop_padding] * 4, padding_mode=fill)
        top, left = draws.offsets[i].tolist()
        cropped = TF.crop(padded, top, left, height, width)
        flipped = TF.hflip(cropped) if draws.flipped[i] else cropped
        colours, alpha = flipped[:3], flipped[3:]
        brightness, contrast, saturation = draws.factors[i].tolist()
        colours = TF.adjust_brightness(colours, brightness)
        colours = TF.adjust_contrast(colours, contrast)
        colours = TF.adjust_saturation(colours, saturation)
        jittered = torch.cat([colours, alpha])
        augmented.append(TF.rotate(jittered, draws.angles[i].item(), InterpolationMode.NEAREST, fill=0))
    return torch.stack(augmented)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    channels=st.sampled_from([1, 3, 4]),
    height=st.integers(5, 40),
    width=st.integers(5, 40),
    augmentation=st.builds(
        Augmentation,
        crop_padding=st.integers(0, 4),
        flip=st.sampled_from([0.0, 0.5, 1.0]),
        jitter=st.floats(0, 1, width=32),
        rotation=st.floats(0, 180, width=32),
        crop_fill=st.sampled_from(["black", "reflect"]),
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_torchvision_image_by_image(channels, height, width, augmentation, seed):
    images = random_images(8, channels, height, width, seed=seed)
    draws = augmentation.draw(8, Generator().manual_seed(seed))
    expected = torchvision_one_by_one(augmentation, images, draws)
    with pytest.MonkeyPatch.context() as patch:
        plain, compiled = (augmented(augmentation, images, draws, patch, large) for large in (2**60, 0))
    torch.testing.assert_close(plain, expected, rtol=0, atol=1e-6)
    assert torch.equal(plain, compiled)  # bit for bit


def augmented(
    augmentation: Augmentation, images: Tensor, draws: Draws, patch: pytest.MonkeyPatch, large: int
):
    patch.setattr(augment, "LARGE", large)
    return augmentation(images, draws)


def test_equals_torchvision_as_it_is_used():
    augmentation = Augmentation()
    images = random_images(128, 3, 32, 32)
    draws = augmentation.draw(128, Generator().manual_seed(0))
    expected = torchvision_one_by_one(augmentation, images, draws)
    torch.testing.assert_close(augmentation(images, draws), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(crop_padding=4, flip=0, jitter=0, rotation=0),
        Augmentation(crop_padding=0, flip=0.5, jitter=0, rotation=0),
        Augmentation(crop_padding=0, flip=0, jitter=0.2, rotation=0),
        Augmentation(crop_padding=0, flip=0, jitter=0, rotation=15),
    ],
    ids=["crop", "flip", "jitter", "rotation"],
)
def test_every_image_has_its_own_draw(augmentation: Augmentation):
    same = random_images(1, 3, 32, 32).expand(64, -1, -1, -1)
    augmented = augmentation(same, augmentation.draw(64, Generator().manual_seed(0)))
    different = len({image.numpy().tobytes() for image in augmented})
    assert different == 2 if augmentation.flip else different > 30


def test_draws_stay_in_range_and_reach_its_ends():
    draws = Augmentation(crop_padding=2, flip=0.25, jitter=0.3, rotation=20).draw(20_000, Generator())
    assert draws.offsets.unique().tolist() == [0, 1, 2, 3, 4]
    assert draws.flipped.double().mean() == pytest.approx(0.25, abs=0.02)
    assert 0.7 <= draws.factors.min() < 0.71
    assert 1.29 < draws.factors.max() <= 1.3
    assert -20 <= draws.angles.min() < -19.9
    assert 19.9 < draws.angles.max() <= 20


def test_a_knob_leaves_the_draws_of_the_others_alone():
    one, other = (
        Augmentation(flip=flip, jitter=jitter).draw(16, Generator().manual_seed(3))
        for flip, jitter in ((0.0, 0.0), (1.0, 0.5))
    )
    assert torch.equal(one.offsets, other.offsets)
    assert torch.equal(one.angles, other.angles)


def test_a_slice_of_the_draws_augments_a_slice_of_the_images():
    augmentation = Augmentation()
    images = random_images(9, 3, 16, 16)
    draws = augmentation.draw(9, Generator().manual_seed(0))
    part = slice(1, None, 2)
    torch.testing.assert_close(augmentation(images[part], draws[part]), augmentation(images, draws)[part])


def test_identity_is_to_float_and_leaves_the_input_alone():
    images = random_images(4, 3, 8, 8)
    before = images.clone()
    assert torch.equal(IDENTITY(images, IDENTITY.draw(4, Generator())), to_float(images))
    augmentation = Augmentation()
    augmentation(images, augmentation.draw(4, Generator()))
    assert torch.equal(images, before)


def test_to_float_covers_0_to_1():
    converted = to_float(torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3))
    assert converted.dtype == torch.float32
    assert converted.flatten().tolist() == pytest.approx([0, 0.2, 1])
