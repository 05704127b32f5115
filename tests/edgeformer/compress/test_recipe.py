"""Recipes are read strictly: each mistake is one line that says where it is and what would be right."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from edgeformer.compress.recipe import SHIPPED, Distill, Prune, Sparsify, load_recipe, read_recipe
from edgeformer_runtime.errors import InputError


def test_a_recipe_is_what_its_file_says() -> None:
    recipe = read_recipe(
        tomllib.loads(
            """
            seq_len = 32
            stored = "float16"
            [[step]]
            kind = "distill"
            training = { epochs = 2, learning_rate = 1 }
            loss = { logits = 0.5, hidden = 1.0, layer_map = [[0, 1], [1, 3]] }
            student = { model_type = "bert", num_hidden_layers = 2 }
            [[step]]
            kind = "prune"
            heads = 0.25
            layers = [1]
            [[step]]
            kind = "sparsify"
            sparsity = 0.5
            block = [1, 4]
            """
        ),
        "small",
    )
    distill, prune, sparsify = recipe.steps
    assert (recipe.name, recipe.seq_len, recipe.stored) == ("small", 32, "float16")
    assert isinstance(distill, Distill) and isinstance(prune, Prune) and isinstance(sparsify, Sparsify)
    assert distill.training.learning_rate == 1.0 and isinstance(distill.training.learning_rate, float)
    assert distill.loss.layer_map == ((0, 1), (1, 3))
    assert distill.student == {"model_type": "bert", "num_hidden_layers": 2}
    assert (prune.layers, prune.heads, prune.neurons) == ((1,), 0.25, 0.0)
    assert sparsify.block == (1, 4)


STEP = "[[step]]\nkind = "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "recipe x: expected at least one [[step]]"),
        ("speed = 1\n" + STEP + '"finetune"', "recipe x: unknown key 'speed': expected any of description, seq_len"),
        (
            STEP + '"distil"',
            "step 1: kind must be one of finetune, distill, prune, sparsify, quantize_aware, found 'distil'",
        ),
        (
            STEP + '"prune"\nheads = 0.5\n' + STEP + '"distill"\nloss = { temprature = 2.0 }',
            "recipe x, step 2 (distill): loss: unknown key 'temprature': did you mean temperature? expected any of",
        ),
        (STEP + '"sparsify"', "step 1 (sparsify): sparsity is missing"),
        (STEP + '"prune"\nheads = "half"', "step 1 (prune): heads must be a number, found 'half'"),
        (STEP + '"prune"\nheads = 1.5', "heads must be at least 0 and below 1, found 1.5"),
        (STEP + '"prune"', "at least one of heads, neurons and layers must be above 0"),
        (STEP + '"prune"\nlayers = 1.5', "layers must be an integer or an array, found 1.5"),
        (STEP + '"finetune"\ntraining = { epochs = true }', "training: epochs must be an integer, found True"),
        (STEP + '"finetune"\ntraining = { schedule = "cos" }', "schedule must be one of linear, cosine, constant"),
        (STEP + '"finetune"\naugment = { variants = 2 }', "variants of texts have no label"),
        (STEP + '"distill"\nloss = { labels = 1.0 }', "loss must have a term with a teacher"),
        (STEP + '"distill"\nloss = { hidden = 1.0, layer_map = [[0]] }', "layer_map[0] must be 2 values, found 1"),
        (STEP + '"sparsify"\nsparsity = 0.5\nbegin = 0.8', "end must be above begin and at most 1, found 0.8 and 0.7"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        read_recipe(tomllib.loads(text), "x")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("seq_len = ")
    with pytest.raises(InputError, match=r"recipe broken\.toml is not TOML"):
        load_recipe(str(path))
    with pytest.raises(InputError, match="no recipe 'fast': expected a TOML file or one of"):
        load_recipe("fast")


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.toml")))
def test_shipped_recipes_are_valid(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
