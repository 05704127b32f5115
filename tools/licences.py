"""The licences of what the packages bring, for people; those with duties first."""

from __future__ import annotations

from collections.abc import Sequence

from tools.components import Component

DUTIES = {
    "av": "its code is BSD-3-Clause; its wheels hold FFmpeg with libx264 and libx265, which makes them GPL as a whole. "
    "It comes with the extra `media` alone, which no other extra brings, and is not part of our wheels: who passes it "
    "on with an app passes on GPL code.",
    "pillow-heif": "its code is BSD-3-Clause; its wheels as a whole are under the GPL-2.0, as they hold libx265, "
    "beside libheif and libde265, LGPL-3.0. It comes with the extra `heic` alone, which no other extra brings, and is "
    "not part of our wheels: who passes it on with an app passes on GPL code.",
    "soxr": "LGPL-2.1-or-later, and so is libsoxr in its wheel. It comes with the extra `speech`, is loaded as a "
    "shared library that a user may replace, and is not part of our wheels.",
    "soundfile": "BSD-3-Clause; its wheel holds libsndfile, LGPL-2.1-or-later, with codecs, some of them LGPL, too. "
    "It comes with the extra `speech`, is loaded as a shared library, and is not part of our wheels.",
}
"""Packages whose licence asks for more than a notice, in words that have been read in their wheels."""

_HEAD = """\
# Licences

EdgeFormer is under Apache-2.0. Installed with every extra for users, its wheels bring the packages below, each under
its own licence, as its own metadata states it.

## Licences that ask for more than a notice

"""


def licences_text(components: Sequence[Component]) -> str:
    """The list as Markdown."""
    others = [each for each in components if not each.ours]
    lines = [_HEAD]
    lines += [f"- **{each.name}** {each.version}: {DUTIES[each.name]}\n" for each in others if each.name in DUTIES]
    lines += ["\n## All\n\n| package | version | licence |\n|---|---|---|\n"]
    lines += [f"| {each.name} | {each.version} | {each.licence.replace('|', '/')} |\n" for each in others]
    return "".join(lines)
