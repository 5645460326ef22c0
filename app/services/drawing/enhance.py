"""Better prompts: Enhance Prompt before the text encoder, with the model that was named, or by rule."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field

from ....host.folder_paths import get_full_path
from ....host.schema.object_info import inputs_of
from ..bodies.parameters import APPROXIMATED, To
from .graph_layout import LaidOutGraph, Output
from .recipe import Recipe, named_file

_CLASS, _RULES, _FOLDER, _ROLE = "TesseraEnhancePrompt", "rules", "text_generation", "enhance prompt"
# Where a prompt goes: through Enhance Prompt where there is one.
PROMPT = To("enhance prompt.prompt", "positive.text")
SWITCH = To("enhance prompt.model")
HOW = Field(
    description="By the model of --text-model NAME, a folder in models/text_generation; "
    "without it, approximated: rules add words."
)


def written(graph: LaidOutGraph, recipe: Recipe, text: str) -> str | Output:
    """The prompt that is encoded: `text`, or what Enhance Prompt makes of it."""
    # The node refuses a prompt without words.
    if not recipe.enhance or not any(sign.isprintable() and sign not in " \ufffd" for sign in text):
        return text
    names = [str(name) for name in inputs_of(graph.info[_CLASS])["model"].options.get("options", [])]
    model = named_file(recipe.text_model, [name for name in names if name != _RULES])
    follows = model is not None and (not recipe.instructions.strip() or _chats(model))
    given = {"instructions": recipe.instructions} if follows else {}
    node = graph.add(_ROLE, _CLASS, prompt=text, model=model or _RULES, **given)
    if not follows:
        said = f"node {graph.number(_ROLE)} {_CLASS}.model; {_why(recipe, model)}"
        recipe.missing |= dict.fromkeys((f"{_ROLE}.model", f"{_ROLE}.instructions"), (APPROXIMATED, said))
    return node[0]


def _why(recipe: Recipe, model: str | None) -> str:
    if model:
        return f"{model} goes on with the prompt; it is no model for chats, which could follow instructions"
    absent = f'no folder "{recipe.text_model}" in models/{_FOLDER}; ' if recipe.text_model else ""
    ignored = ", which cannot follow instructions" if recipe.instructions.strip() else ""
    return f"{absent}rules add words{ignored}; name a model with --text-model"


def _chats(name: str) -> bool:
    """Whether a model has a chat template."""
    folder = Path(get_full_path(_FOLDER, name) or "")
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        settings = None
    return (folder / "chat_template.jinja").is_file() or (isinstance(settings, dict) and "chat_template" in settings)
