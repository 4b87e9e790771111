"""Families: flat keys become objects and flat keys again; every mistake gets one sentence with its place."""

from __future__ import annotations

import json
import pickle
import sys
import tomllib
from types import ModuleType
from typing import Any

import pytest
import tomli_w
from pydantic import ValidationError

from fedopt.errors import InvalidExperiment
from fedopt.explain import explain
from fedopt.family import outside_names
from fedopt.registry import UnknownName
from tests.fedopt.drawings import (
    HERE,
    NO_CLASS,
    SHAPES,
    Bought,
    Box,
    Circle,
    Clashing,
    Dotted,
    Drawing,
    Grown,
    Plain,
    Shape,
    Sheet,
    Tile,
    Wide,
)


def refusal(**keys: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Sheet.model_validate({"drawing": keys})
    return explain(caught.value)


def test_flat_keys_become_objects() -> None:
    drawing = Drawing(name="box", width=2.0, ink="dotted", gap=5, count=4)
    assert drawing.shape == Box(width=2.0)
    assert isinstance(drawing.ink, Dotted)
    assert (drawing.ink.gap, drawing.count) == (5, 4)
    assert (drawing.shape.name, drawing.ink.name) == ("box", "dotted")


def test_missing_names_take_the_default_which_may_follow_from_an_earlier_family() -> None:
    assert Drawing().shape == Circle()
    assert Drawing().ink == Plain()
    assert Drawing(name="box").ink == Dotted()
    assert Drawing(name="box", ink="plain").ink == Plain()
    assert Drawing(radius=3.0).shape == Circle(radius=3.0)


def test_a_dump_is_flat_and_holds_what_is_read_and_nothing_else() -> None:
    drawing = Drawing(name="box", width=2.0, gap=5, radius=7.0)
    assert list(drawing.model_dump(mode="json", exclude_none=True)) == [
        "name",
        "width",
        "corners",
        "ink",
        "gap",
        "count",
    ]
    assert json.loads(Sheet(drawing=drawing).model_dump_json())["drawing"] == {
        "name": "box",
        "width": 2.0,
        "height": None,
        "corners": [0.0],
        "ink": "dotted",
        "gap": 5,
        "count": 1,
        "note": None,
    }


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"name": "box", "height": 3.0, "corners": [1.0, 2.0]},
        {"name": "slab", "side": 3, "ink": "dotted"},
        {"name": "grown", "base": "box", "width": 4.0, "factor": 0.5},
        {"name": "grown"},
        {"name": f"{HERE}:Circle", "radius": 2.0},
        {"gap": 9, "radius": 2.0, "note": "gap is not read"},
    ],
)
def test_what_is_written_reads_back_the_same(keys: dict[str, Any]) -> None:
    sheet = Sheet(drawing=Drawing(**keys))
    written = tomli_w.dumps(sheet.model_dump(mode="json", exclude_none=True))
    again = Sheet.model_validate(tomllib.loads(written))
    assert again == sheet
    assert hash(again.drawing) == hash(sheet.drawing)
    assert tomli_w.dumps(again.model_dump(mode="json", exclude_none=True)) == written
    assert pickle.loads(pickle.dumps(sheet)) == sheet


def test_sections_that_say_something_else_are_unequal() -> None:
    assert Drawing(radius=2.0) != Drawing()
    assert Drawing(name="tile") != Drawing(name="slab")
    assert Drawing(name="grown", base="box") != Drawing(name="grown", base="circle")
    assert Drawing() != Circle()


def test_a_wrapper_reads_its_own_keys_and_those_of_what_it_wraps() -> None:
    drawing = Drawing(name="grown", factor=3.0, base="box", width=2.0, count=2)
    assert drawing.shape == Grown(factor=3.0, base=Box(width=2.0))
    flat = drawing.model_dump(exclude_none=True)
    assert list(flat) == ["name", "base", "width", "corners", "factor", "ink", "count"]
    assert (flat["name"], flat["base"]) == ("grown", "box")
    assert drawing.unread == {}


def test_a_wrapper_stands_alone_too() -> None:
    alone = Grown.model_validate({"base": "box", "width": 2.0})
    assert (alone.name, alone.base, alone.factor) == ("grown", Box(width=2.0), 2.0)
    assert Grown.model_validate(alone.model_dump()) == alone
    assert Drawing(shape=alone).model_dump() == Drawing(name="grown", base="box", width=2.0).model_dump()


def test_a_wrapper_cannot_wrap_a_wrapper_that_has_the_same_key() -> None:
    told = "drawing.base: grown cannot wrap another member with a key base"
    assert refusal(name="grown", base="grown") == told


def test_objects_are_taken_by_field_and_by_key() -> None:
    box = Box(width=3.0)
    assert Drawing(shape=box).shape is box
    assert Drawing(name=box).shape is box
    assert Drawing(shape=box).ink == Dotted()  # the default that follows from it
    assert Drawing(shape=box) == Drawing(name="box", width=3.0)
    assert Drawing(shape=Grown(base=Circle()), ink=Wide()).model_dump()["ink"] == f"{HERE}:Wide"


def test_an_object_has_its_own_keys() -> None:
    told = "drawing.width: box is given as an object, which has its own; set it there"
    assert refusal(shape=Box(), width=2.0) == told
    assert refusal(shape=Box(), name="box") == "drawing.name: give name, or an object shape, not both"
    told = f"drawing.name: {HERE}:Plain is no shape: it must be a class that derives from {HERE}.Shape"
    assert refusal(shape=Plain()) == told
    assert refusal(shape="box").startswith("drawing.shape: unknown key; ")


def test_a_member_knows_its_name() -> None:
    class Local(Shape):
        pass

    assert (Circle().name, Grown.model_validate({}).name) == ("circle", "grown")
    assert Wide().name == f"{HERE}:Wide"
    assert Local().name == f"{__name__}:test_a_member_knows_its_name.<locals>.Local"
    assert Tile(name="slab").name == "slab"
    assert Circle(name=f"{HERE}:Circle").name == f"{HERE}:Circle"


def test_wrong_keys_of_an_object_are_sentences() -> None:
    with pytest.raises(InvalidExperiment) as caught:
        Box(width=-1.0)
    assert str(caught.value) == "Box.width: must be greater than 0, not -1.0"
    with pytest.raises(InvalidExperiment, match=r"Box\.widht: unknown key; did you mean width\?"):
        Box(widht=2.0)  # type: ignore[call-arg]


def test_a_name_that_means_another_class_is_refused() -> None:
    with pytest.raises(InvalidExperiment) as caught:
        Circle(name="box")
    assert str(caught.value) == f"Circle.name: box is not {HERE}:Circle; leave out the name"
    with pytest.raises(InvalidExperiment) as caught:
        Tile()
    assert str(caught.value) == "Tile.name: Tile has more than one name; give one of tile, slab"


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"name": "crcle"}, "drawing.name: unknown shape 'crcle'; did you mean circle? (one of circle, box, "),
        ({"name": 3}, "drawing.name: must be a string, not 3"),
        ({"name": "grown", "base": "bx"}, "drawing.base: unknown shape 'bx'; did you mean box?"),
        (
            {"name": NO_CLASS},
            f"drawing.name: {NO_CLASS} is no shape: it must be a class that derives from {HERE}.Shape",
        ),
        ({"ink": f"{HERE}:Box"}, f"drawing.ink: {HERE}:Box is no ink: it must be a class that derives from {HERE}.Ink"),
        ({"ink": f"{HERE}:Gone"}, f"drawing.ink: {HERE}:Gone cannot be imported: module '{HERE}' has no attribute"),
        ({"ink": "no.such.module:Gone"}, "drawing.ink: no.such.module:Gone cannot be imported: No module named 'no'"),
        ({"ink": ":"}, "drawing.ink: : cannot be imported: "),
        ({"radius": -1.0}, "drawing.radius: must be greater than 0, not -1.0"),
        ({"radius": "far"}, "drawing.radius: must be a number, not 'far'"),
        ({"name": "box", "corners": [1.0, "x"]}, "drawing.corners.1: must be a number, not 'x'"),
        ({"name": "box", "height": 0.5}, "drawing.height: must not be below width"),
        ({"name": "grown", "base": "box", "width": 0.0}, "drawing.width: must be greater than 0, not 0.0"),
        ({"count": 0}, "drawing.count: must be greater than or equal to 1, not 0"),
        ({"number": 3}, "drawing.number: this key is called count now"),
        ({"name": "box", "breadth": 3.0}, "drawing.breadth: this key is called width now"),
        ({"radus": 3}, "drawing.radus: unknown key; did you mean radius? (one of name, ink, count, note, number, "),
        ({"shape": "circle"}, "drawing.shape: unknown key; "),
    ],
)
def test_a_mistake_gets_one_sentence_with_its_place(keys: dict[str, Any], told: str) -> None:
    assert refusal(**keys).startswith(told)
    assert "\n" not in refusal(**keys)


def test_keys_that_nothing_reads_are_remembered_and_left_out() -> None:
    drawing = Drawing(name="box", radius=7.0, gap=3)
    assert drawing.unread == {"radius": "box"}
    assert drawing.notes("drawing") == ["drawing.radius is not used by box"]
    assert "radius" not in drawing.model_dump()
    assert drawing == Drawing(name="box")
    default = Drawing(name="box", radius=1.0)
    assert default.unread == {"radius": "box"}
    assert default.notes("drawing") == []
    needed = Drawing(name="circle", seed=3)
    assert needed.notes("drawing") == ["drawing.seed is not used by circle"]  # a required key has no default
    of_a_wrapper = Drawing(base="box", factor=2.0, corners=[0.0])
    assert of_a_wrapper.unread == {"base": "circle", "factor": "circle", "corners": "circle"}
    assert of_a_wrapper.notes("drawing") == ["drawing.base is not used by circle"]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"name": "box", "radius": -7.0}, "drawing.radius: must be greater than 0, not -7.0"),
        ({"gap": 0}, "drawing.gap: must be greater than or equal to 1, not 0"),
        ({"base": "bx"}, "drawing.base: unknown shape 'bx'; did you mean box?"),
    ],
)
def test_a_key_that_nothing_reads_must_still_be_valid(keys: dict[str, Any], told: str) -> None:
    assert refusal(**keys).startswith(told)


def test_a_copy_has_what_was_given_and_what_is_new() -> None:
    drawing = Drawing(name="box", width=2.0, count=3)
    copied = drawing.model_copy(update={"width": 4.0, "note": "wider"})
    assert copied == Drawing(name="box", width=4.0, count=3, note="wider")
    assert drawing.model_copy() == drawing
    assert drawing.model_copy(update={"count": 4}, deep=True) == Drawing(name="box", width=2.0, count=4)
    assert copied.unread == {}
    # A default that followed from another key is found anew.
    assert (drawing.ink.name, drawing.model_copy(update={"name": "circle"}).ink.name) == ("dotted", "plain")


def test_a_copy_drops_the_keys_of_a_displaced_member() -> None:
    drawing = Drawing(name="grown", base="box", width=2.0, factor=3.0)
    assert drawing.model_copy(update={"name": "box"}) == Drawing(name="box", width=2.0)
    assert drawing.model_copy(update={"name": "box"}).unread == {}
    assert drawing.model_copy(update={"base": "circle"}) == Drawing(name="grown", factor=3.0)
    assert drawing.model_copy(update={"name": "circle", "gap": 4}).unread == {"gap": "plain"}
    # What was given to no effect stays what it was.
    idle = Drawing(radius=2.0, gap=4)
    assert idle.model_copy(update={"ink": "dotted"}) == Drawing(radius=2.0, ink="dotted", gap=4)
    assert idle.model_copy(update={"count": 2}).unread == {"gap": "plain"}


def test_a_copy_keeps_and_takes_objects() -> None:
    class Local(Shape):
        size: int = 1

    drawing = Drawing(shape=Local(size=2), count=2)
    assert drawing.model_copy(update={"count": 3}).shape == Local(size=2)
    assert drawing.model_copy(update={"size": 5}).shape == Local(size=5)
    assert drawing.model_copy(update={"shape": Box(width=2.0)}) == Drawing(name="box", width=2.0, count=2)
    assert Drawing(radius=2.0).model_copy(update={"name": Box()}) == Drawing(name="box")
    assert Drawing(radius=2.0).model_copy(update={"shape": Circle()}) == Drawing()


def test_a_copy_is_checked_as_the_original_was() -> None:
    with pytest.raises(InvalidExperiment, match=r"^width: must be greater than 0, not -1\.0"):
        Drawing(name="box").model_copy(update={"width": -1.0})
    with pytest.raises(InvalidExperiment, match=r"^name: unknown shape 'bx'"):
        Drawing().model_copy(update={"name": "bx"})
    with pytest.raises(InvalidExperiment, match=r"^gap: must be greater than or equal to 1"):
        Drawing().model_copy(update={"gap": 0})


def test_members_that_have_the_same_key_do_not_go_together() -> None:
    """It can only come from outside: what is registered here has no such pair."""
    told = "both have a key of this name; they do not go together"
    assert refusal(name=f"{HERE}:Clashing") == f"drawing.count: Drawing and {HERE}:Clashing {told}"
    assert refusal(shape=Clashing()) == f"drawing.count: Drawing and {HERE}:Clashing {told}"
    assert refusal(name="box", ink=f"{HERE}:Wide") == f"drawing.width: box and {HERE}:Wide {told}"
    assert refusal(name="grown", base="box", ink=f"{HERE}:Wide") == f"drawing.width: box and {HERE}:Wide {told}"
    assert Drawing(ink=f"{HERE}:Wide", width=4).ink == Wide(width=4)


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("a_module_from_outside")
    exec("from tests.fedopt.drawings import Ink\nclass Sparkling(Ink):\n    grains: int = 5\n", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_a_class_from_outside_is_a_member_like_any_other(outside: ModuleType) -> None:
    drawing = Drawing(ink="a_module_from_outside:Sparkling", grains=7)
    assert drawing.ink == outside.Sparkling(grains=7)
    assert drawing.model_dump()["ink"] == drawing.ink.name == "a_module_from_outside:Sparkling"
    assert Drawing(ink=outside.Sparkling(grains=7)) == drawing


def test_a_registry_resolves_its_names() -> None:
    assert SHAPES.resolve("box") is Box
    assert SHAPES.resolve(f"{HERE}:Clashing") is Clashing
    assert SHAPES.names_of(Tile) == ["tile", "slab"]
    assert SHAPES.names_of(Clashing) == []
    with pytest.raises(UnknownName, match="unknown shape 'bx'; did you mean box"):
        SHAPES.resolve("bx")


def test_a_prefix_stands_for_all_names_of_a_library() -> None:
    drawing = Drawing(name="shop:star", price=2.0)
    assert drawing.shape == Bought(name="shop:star", price=2.0)
    assert drawing.shape.after_prefix == "star"
    assert drawing.model_dump()["name"] == "shop:star"
    assert Drawing(shape=Bought(name="shop:star", price=2.0)) == drawing
    assert outside_names(drawing) == set()
    assert Drawing(price=2.0).unread == {"price": "circle"}
    with pytest.raises(InvalidExperiment, match='give Bought a name, as in name="shop:NAME"'):
        Bought()
    with pytest.raises(InvalidExperiment, match="is not"):
        Circle(name="shop:star")
