"""Two families and a section with both, for the tests of families."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from fedopt.composite import Composite, FamilyField
from fedopt.family import Family
from fedopt.registry import Entry, Registry
from fedopt.section import Section, wrong

HERE = __name__
NO_CLASS = f"{HERE}:not_a_member"
SHAPES = Registry(
    "shape",
    {
        "circle": f"{HERE}:Circle",
        "box": f"{HERE}:Box",
        "tile": f"{HERE}:Tile",
        "slab": f"{HERE}:Tile",
        "grown": f"{HERE}:Grown",
        "drawn": f"{HERE}:Drawn",
    },
    base=f"{HERE}:Shape",
    prefixes={"shop": Entry(f"{HERE}:Bought", "whatever the shop sells")},
)
INKS = Registry("ink", {"plain": f"{HERE}:Plain", "dotted": f"{HERE}:Dotted"}, base=f"{HERE}:Ink")


class Shape(Family):
    registry: ClassVar[Registry] = SHAPES
    usual_ink: ClassVar[str] = "plain"


class Circle(Shape):
    radius: float = Field(1.0, gt=0)


class Box(Shape):
    usual_ink: ClassVar[str] = "dotted"
    renamed: ClassVar[dict[str, str]] = {"breadth": "width"}
    width: float = Field(1.0, gt=0)
    height: float | None = Field(None, gt=0)
    corners: tuple[float, ...] = Field((0.0,), strict=False)

    @model_validator(mode="after")
    def _upright(self) -> Box:
        if self.height is not None and self.height < self.width:
            raise wrong("height", "must not be below width")
        return self


class Tile(Shape):
    side: int = 1


class Drawn(Shape):
    seed: int


class Bought(Shape):
    """Stands for all names with a prefix."""

    price: float = Field(1.0, gt=0)


class Grown(Composite, Shape):
    families = (FamilyField("base", "base", SHAPES, "circle"),)
    base: Shape
    factor: float = 2.0


class Clashing(Shape):
    """From outside: it has a key that the section and another family have, too."""

    radius: float = 1.0
    count: int = 1


class Ink(Family):
    registry: ClassVar[Registry] = INKS


class Plain(Ink):
    pass


class Dotted(Ink):
    gap: int = Field(3, ge=1)


class Wide(Ink):
    """From outside."""

    width: int = 1


def not_a_member() -> None:
    """A function, which no section is."""


def _usual(chosen: Any, keys: Any) -> str:
    return str(chosen["shape"].usual_ink)


class Drawing(Composite):
    renamed: ClassVar[dict[str, str]] = {"number": "count"}
    families = (FamilyField("shape", "name", SHAPES, "circle"), FamilyField("ink", "ink", INKS, _usual))
    shape: Shape
    ink: Ink
    count: int = Field(1, ge=1)
    note: str | None = None

    if TYPE_CHECKING:

        def __init__(self, **keys: Any) -> None: ...


class Sheet(Section):
    drawing: Drawing = Drawing()
