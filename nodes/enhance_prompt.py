"""Enhance Prompt: extend a prompt by rules or with a text model."""

from __future__ import annotations

from ..contract import ProgressBar, folder_paths, io, room_for_model, throw_exception_if_processing_interrupted
from ..prompts.folders import find_models, weight_files
from ..prompts.rules import add_words
from ..prompts.texts import one_line
from ..prompts.writing import TOKENS_PER_WORD, write
from .checks import verdict
from .inputs import seed_input
from .shown import shown

FOLDER = "text_generation"
RULES = "rules"


class TesseraEnhancePrompt(io.ComfyNode):
    """Add words to a prompt by rules, or write it with a local text model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraEnhancePrompt",
            display_name="Enhance Prompt",
            category="Tessera/text",
            description="Enhances a prompt: adds words by rules, or writes it with a text model on this machine.",
            search_aliases=["prompt enhancer", "expand prompt", "magic prompt", "llm", "promptgen", "text generation"],
            has_intermediate_output=True,
            inputs=[
                io.String.Input(
                    "prompt", multiline=True, dynamic_prompts=True, default="", tooltip="What the image should show."
                ),
                io.Combo.Input(
                    "model",
                    options=[RULES, *find_models(folder_paths.get_folder_paths(FOLDER))],
                    default=RULES,
                    optional=True,
                    tooltip="rules adds words on what the prompt leaves open, without a model; or a folder in "
                    "models/text_generation: a chat model rewrites the prompt, any other continues it.",
                ),
                io.String.Input(
                    "instructions",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="What a chat model should do with the prompt, such as: set it in winter. Only for chat "
                    "models.",
                ),
                seed_input("Random seed; the same seed writes the same words.", optional=True),
                io.Int.Input(
                    "max_words",
                    default=60,
                    min=1,
                    max=400,
                    optional=True,
                    tooltip="Maximum number of words added or written.",
                ),
                io.Float.Input(
                    "temperature",
                    default=0.8,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="Sampling temperature of a model; 0 always takes the likeliest token. Not for rules.",
                ),
            ],
            outputs=[io.String.Output(display_name="prompt", tooltip="The enhanced prompt, in one line.")],
        )

    @classmethod
    def execute(
        cls,
        prompt: str,
        model: str = RULES,
        instructions: str = "",
        seed: int = 0,
        max_words: int = 60,
        temperature: float = 0.8,
    ) -> io.NodeOutput:
        """Check, then write."""
        check_words(prompt)
        check_instructions(model, instructions)
        if model == RULES:
            better = add_words(prompt, seed, max_words)
            return io.NodeOutput(better, ui=shown(better))
        folder = find_models(folder_paths.get_folder_paths(FOLDER)).get(model)
        if folder is None:
            raise ValueError(f"model: found {model!r}; expected {RULES}, or a folder in models/{FOLDER}")
        device = room_for_model(sum(path.stat().st_size for path in weight_files(folder)))
        bar = ProgressBar(TOKENS_PER_WORD * max_words)

        def before_token() -> None:
            throw_exception_if_processing_interrupted()
            bar.update(1)

        better = write(folder, prompt, instructions, seed, max_words, temperature, device, before_token)
        return io.NodeOutput(better, ui=shown(better))

    @classmethod
    def validate_inputs(
        cls, prompt: str | None = None, model: str | None = RULES, instructions: str | None = ""
    ) -> bool | str:
        """Check that the prompt has words, and that instructions have a model to follow them."""
        given = {"prompt": prompt, "model": model, "instructions": instructions}
        return verdict(cls, given, (check_words, ["prompt"]), (check_instructions, ["model", "instructions"]))


def check_words(prompt: str) -> None:
    """Raise ValueError when a prompt has no words."""
    if not one_line(prompt):
        raise ValueError("prompt: found no words; expected at least one; write what the image should show")


def check_instructions(model: str, instructions: str) -> None:
    """Raise ValueError when there are instructions but no model to follow them."""
    if model == RULES and one_line(instructions):
        raise ValueError(
            "instructions: found some with rules, which cannot follow them; choose a chat model in "
            "models/text_generation, or leave them empty"
        )
