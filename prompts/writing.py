"""A prompt written by a causal language model, sampled with a random generator of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .folders import load
from .texts import answer, bounded, first_line, one_line

CANDIDATES = 50
"""Number of likeliest tokens to sample from (top k)."""
TOKENS_PER_WORD = 3
"""Upper bound of tokens for a word; rare words and names take several."""

_TASK = (
    "Rewrite a prompt for an image generator. Keep everything that it names, and add what it leaves open: material, "
    "light, colour, surroundings, style. {instructions}Answer with the new prompt alone, in one line of at most "
    "{most} words.\n\nThe prompt: {prompt}"
)


class Draw:
    """Turn greedy decoding into sampling: the argmax of log p / temperature + Gumbel noise samples p^(1 / temperature).

    The noise comes from a CPU generator of its own, so a seed gives the same on every device and torch's random state
    is not changed. Called by transformers with scores (B, V) before each token.
    """

    def __init__(self, seed: int, temperature: float, before_token: Callable[[], None]) -> None:
        self.generator = torch.Generator().manual_seed(seed % 2**63)
        self.temperature = temperature
        self.before_token = before_token

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores (B, V) whose argmax is the sampled token."""
        self.before_token()
        if self.temperature == 0:
            return scores
        noise = -torch.empty(scores.shape).exponential_(generator=self.generator).log()
        drawn = scores.float() / self.temperature + noise.to(scores.device)
        least = scores.topk(min(CANDIDATES, scores.shape[-1])).values[..., -1:]
        return drawn.masked_fill(scores < least, -torch.inf)


def write(
    folder: Path,
    prompt: str,
    instructions: str = "",
    seed: int = 0,
    max_words: int = 60,
    temperature: float = 0.8,
    device: torch.device | None = None,
    before_token: Callable[[], None] = lambda: None,
) -> str:
    """Rewrite a prompt, or continue it.

    A model with a chat template is asked for a new prompt that follows the instructions. Others continue the prompt,
    which is kept word for word.

    Args:
        folder: of a transformers model, see `folders.load`.
        seed: from 0 to 2^64 - 1.
        max_words: upper bound of the words that are written; those of a prompt that is kept do not count.
        temperature: 0 takes the likeliest token every time; 1 samples as the model was trained.
        before_token: called before each token; what it raises ends the writing.

    Returns:
        One line.

    Raises:
        ModuleNotFoundError: transformers is not installed.
        ValueError: the folder holds no such model, the model cannot follow instructions, the prompt is too long for
            it, or nothing was written.
    """
    model, tokenizer = load(folder, device or torch.device("cpu"))
    chats = bool(getattr(tokenizer, "chat_template", None))
    if one_line(instructions) and not chats:
        raise ValueError(
            f"{folder.name}: has no chat template, so it goes on with a prompt and cannot follow instructions; "
            "expected a model for chats, or no instructions"
        )
    kept = one_line(prompt)
    tokens = (
        _asked(tokenizer, kept, one_line(instructions), max_words) if chats else tokenizer(kept, return_tensors="pt")
    )
    written, ended = _continue(model, tokenizer, tokens, folder.name, max_words, Draw(seed, temperature, before_token))
    text = bounded(answer(written) if chats else first_line(written), max_words + (not chats), ended)
    if not text.strip():
        raise ValueError(f"{folder.name}: wrote nothing; try another seed or temperature, or choose rules")
    return text if chats else one_line(kept + text)


def _asked(tokenizer: Any, prompt: str, instructions: str, most: int) -> Any:
    """Return the tokens of a chat that asks for a prompt, as the user: not every template has a system role."""
    said = f"{instructions.rstrip('.')}. " if instructions else ""
    content = _TASK.format(instructions=said, most=most, prompt=prompt)
    # Models that think by default are asked not to; other templates ignore this option.
    options = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt", "enable_thinking": False}
    return tokenizer.apply_chat_template([{"role": "user", "content": content}], **options)


def _continue(model: Any, tokenizer: Any, tokens: Any, name: str, max_words: int, draw: Draw) -> tuple[str, bool]:
    """Return the continuation of some tokens, and whether the model ended it."""
    from transformers import GenerationConfig, LogitsProcessorList

    ids, mask = tokens["input_ids"].to(model.device), tokens["attention_mask"].to(model.device)
    given, reads = ids.shape[1], getattr(model.config.get_text_config(), "max_position_embeddings", None)
    most = TOKENS_PER_WORD * max_words
    if reads is not None and given >= reads:
        raise ValueError(f"{name}: the prompt has {given} tokens; expected less than the {reads} that it reads")
    ends = model.generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends
    pad = ends[0] if isinstance(ends, list) else ends
    # The model's own settings would draw from torch's random numbers.
    model.generation_config = GenerationConfig(
        max_new_tokens=min(most, reads - given if reads else most), do_sample=False, eos_token_id=ends, pad_token_id=pad
    )
    with torch.inference_mode():
        made = model.generate(ids, attention_mask=mask, logits_processor=LogitsProcessorList([draw]))[0]
    # Decoded as a whole: some tokenizers drop the space before the first token.
    before, text = (tokenizer.decode(part, skip_special_tokens=True) for part in (made[:given], made))
    stops = set(ends if isinstance(ends, list) else [ends])
    return text[len(before) :], int(made[-1]) in stops
