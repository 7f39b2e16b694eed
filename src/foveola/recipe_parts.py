"""Parts of a recipe: types of values, and the settings that are tables of settings, such as augmentation."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from foveola.models.pretrained import ENTRIES

# Strict: `epochs = true` is a mistake, not one epoch
Fraction = Annotated[float, Field(ge=0, lt=1, strict=True)]
Positive = Annotated[float, Field(gt=0, strict=True)]
NonNegative = Annotated[float, Field(ge=0, strict=True)]
Whole = Annotated[int, Field(ge=0, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]

MIN_SIDE, MAX_SIDE = 4, 512


def _parse_image_size(value: Any) -> int | tuple[int, int] | None:
    """A side, or height and width, of a number, a text such as 48x96, or a list; equal sides become one."""
    if value is None:
        return None
    if isinstance(value, str) and (text := re.fullmatch(r"\s*([0-9]{1,9})\s*[xX×]\s*([0-9]{1,9})\s*", value)):
        value = tuple(map(int, text.groups()))
    sides = value if isinstance(value, list | tuple) and len(value) == 2 else (value, value)
    if not all(type(side) is int for side in sides):
        raise ValueError(f"a side from {MIN_SIDE} to {MAX_SIDE} pixels, or height x width such as 48x96")
    if min(sides) < MIN_SIDE:
        raise ValueError(f"greater than or equal to {MIN_SIDE}")
    if max(sides) > MAX_SIDE:
        raise ValueError(f"less than or equal to {MAX_SIDE}")
    height, width = sides
    return height if height == width else (height, width)


ImageSize = Annotated[int | tuple[int, int] | None, BeforeValidator(_parse_image_size)]


def _check_pretrained(name: str) -> str:
    if name not in ("none", *ENTRIES):
        raise ValueError(" or ".join(map(repr, ("none", *ENTRIES))))
    return name


PretrainedName = Annotated[str, AfterValidator(_check_pretrained)]


class Augment(BaseModel):
    """Random changes to training images, drawn anew for every image in every training step."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    shift: Whole = Field(default=0, description="maximum shift in each direction, in pixels")
    rotation: NonNegative = Field(default=0.0, description="maximum rotation in each direction, in degrees")
    zoom: Fraction = Field(default=0.0, description="maximum change of size: 0.1 is up to 10 % larger or smaller")
    flip: StrictBool | Literal["auto"] = Field(
        default="auto",
        description="mirror each image in every second epoch; auto: from 9 epochs on, if the catalog says "
        "that mirrored images keep their class",
    )
    cutout: Whole | Fraction = Field(
        default=0,
        description="side of a random square that is blanked, in pixels or, below 1, as a fraction of the image's "
        "shorter side (DeVries and Taylor, 2017); 0: none",
    )
    mixup: NonNegative = Field(
        default=0.0,
        description="alpha of the Beta distribution by which images are mixed (Zhang et al., 2018); 0: none",
    )
    strength: Annotated[float, Field(ge=0, le=1, strict=True)] = Field(
        default=0.0,
        description="for photographs: sets crop, brightness, contrast and colour where they are unset; 0: no change; "
        "1: as networks for ImageNet are trained",
    )
    crop: Fraction | None = Field(
        default=None,
        description="smallest fraction of the area that a random crop keeps before it is resized; 0: no crops; unset: "
        "1 - 0.92 × strength (Szegedy et al., 2015)",
    )
    crop_size: Count | None = Field(
        default=None,
        description="side in pixels to which random crops are resized; below the size of the network's images, "
        "training is faster, and objects have about the size that they have in whole images (Touvron et al., 2019); "
        "unset: the images' size",
    )
    brightness: Fraction | None = Field(
        default=None,
        description="maximum change of brightness: 0.2 is up to 20 % darker or lighter; unset: 0.4 × strength (Gross "
        "and Wilber, 2016)",
    )
    contrast: Fraction | None = Field(
        default=None, description="maximum change of contrast: 0.2 is up to 20 % less or more; unset: 0.4 × strength"
    )
    colour: Fraction | None = Field(
        default=None,
        description="maximum change of saturation: 0.2 is up to 20 % less or more; the hue turns by up to a quarter "
        "of that fraction of the colour circle; unset: 0.4 × strength, or 0 if colour alone tells two classes apart",
    )

    def settled(self, *, colour: bool) -> Self:
        """With a number for every setting that is unset, by the strength; `colour` says whether colours may change.

        >>> from foveola.recipe_parts import Augment
        >>> settled = Augment(strength=0.5, contrast=0.1).settled(colour=False)
        >>> settled.crop, settled.brightness, settled.contrast, settled.colour
        (0.54, 0.2, 0.1, 0.0)
        """
        change = round(0.4 * self.strength, 4)
        by_strength = {
            "crop": round(1 - 0.92 * self.strength, 4) if self.strength else 0.0,
            "brightness": change,
            "contrast": change,
            "colour": change if colour else 0.0,
        }
        return self.model_copy(update={key: value for key, value in by_strength.items() if getattr(self, key) is None})


class Distill(BaseModel):
    """How a training learns from a teacher besides the labels, if it has one (Hinton et al., 2015)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    weight: Annotated[float, Field(ge=0, le=1, strict=True)] = Field(
        default=0.5,
        description="weight of the teacher's probabilities in the loss; the labels have the rest",
    )
    temperature: Positive = Field(
        default=4.0,
        description="divides the logits of teacher and student before they are compared: a higher value gives "
        "improbable classes more weight",
    )


TABLES: dict[str, type[Augment] | type[Distill]] = {"augment": Augment, "distill": Distill}
