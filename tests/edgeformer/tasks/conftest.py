"""A tiny text generator with a chat template, as a checkpoint and as a bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoint_factory import save_generator
from tests.edgeformer.tasks.drafted import Drafted

TEMPLATE = """{% for message in messages %}
    {% if message.role == "tool" %}{{ raise_exception("no tools: " + message.role) }}{% endif %}
{{ bos_token }}{{ message.role }}: {{ message.content | trim }}
{% endfor %}
{% if add_generation_prompt %}
{{ bos_token }}assistant: {% generation %}{% endgeneration %}
{% endif %}
"""


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_generator(tmp_path_factory.mktemp("generator") / "tiny-gpt2")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def drafted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Drafted:
    return Drafted(source, tmp_path_factory.mktemp("draft"))
