"""The language model's side: tokens for objects and tags, and a small model where none is downloaded."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from r1pipe.errors import MissingError, ModelError, R1Error
from r1pipe.models.r1.modeling import R1ForConditionalGeneration
from r1pipe.models.r1.processing import CHAT_TEMPLATE, SCENE_TOKEN, with_placeholder
from r1pipe.params.model import Model
from r1pipe.response import TAGS, identifier

PAD, START, END = "<pad>", "<|im_start|>", "<|im_end|>"


def train_tokenizer(texts: Iterable[str], vocabulary: int, num_objects: int) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer in which every frequent word of `texts` is one token, and any other text is spelt.

    Short sequences are most of a tiny model's speed, hence whole words; bytes below, hence no unknown word.
    """
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, START, END, SCENE_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token=PAD, eos_token=END, padding_side="left")
    add_tokens(tokenizer, num_objects)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def add_tokens(tokenizer: PreTrainedTokenizerBase, num_objects: int) -> None:
    """Make the tags and the identifiers single tokens.

    They are not special tokens: TRL decodes completions without those, and every format reward would be 0.
    Each takes the white space before it, so that none is spent a token.
    """
    names = added_tokens(num_objects)
    tokenizer.add_tokens([AddedToken(name, lstrip=True, normalized=False, special=False) for name in names])


def added_tokens(num_objects: int) -> list[str]:
    """Tags and identifiers, in the order in which they are added."""
    return [*TAGS, "<box>", "</box>", *map(identifier, range(num_objects))]


def token_ids(tokenizer: PreTrainedTokenizerBase, tokens: Iterable[str]) -> list[int]:
    """The id of each token."""
    return [int(tokenizer.convert_tokens_to_ids(token)) for token in tokens]


def load_tokenizer(model: Model) -> PreTrainedTokenizerBase:
    """A pretrained language model's tokenizer with our tokens added, and its own chat template given the scene.

    Raises:
        MissingError: if there is no such model.
        ModelError: if the tokenizer has no chat template.
    """
    source = str(model.language)
    with _explained(source):
        tokenizer = AutoTokenizer.from_pretrained(source, revision=model.revision, padding_side="left")
    if tokenizer.chat_template is None:
        raise ModelError(
            f"Expected an instruct model whose tokenizer brings a chat template in {source}, found none; name an instruct model."
        )
    tokenizer.chat_template = with_placeholder(tokenizer.chat_template)
    tokenizer.add_special_tokens({"additional_special_tokens": [SCENE_TOKEN]}, replace_extra_special_tokens=False)
    add_tokens(tokenizer, model.num_objects)
    return tokenizer


def load_pretrained(model: Model) -> PreTrainedModel:
    """The language model that params name, in its frozen dtype; a vision-language model whole.

    Raises:
        MissingError: if there is no such model, or only part of it.
        ModelError: if it is no causal language model, or its weights are in another format than safetensors.
    """
    source = str(model.language)
    with _explained(source):
        published = AutoConfig.from_pretrained(source, revision=model.revision)
        sees = type(published) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        if not sees and type(published) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise ModelError(f"Expected a causal language model in {source}, found {published.model_type}.")
        kind = AutoModelForImageTextToText if sees else AutoModelForCausalLM
        dtype = getattr(torch, model.frozen_dtype)
        found: PreTrainedModel = kind.from_pretrained(
            source, revision=model.revision, dtype=dtype, use_safetensors=True
        )
    return found


@contextmanager
def _explained(source: str) -> Iterator[None]:
    """What transformers says of a source that it cannot read, in one sentence that tells what to do."""
    folder = Path(source)
    local = folder.is_absolute() or source.startswith((".", "pretrained/")) or folder.exists()
    if local and not folder.is_dir():
        found = "a file" if folder.is_file() else "no such folder"
        raise MissingError(f"Expected the language model's folder at {source}, found {found}; {_FETCH}.")
    if local and not (folder / "config.json").is_file():
        held = ", ".join(sorted(path.name for path in folder.iterdir())[:4]) or "nothing"
        raise MissingError(
            f"Expected config.json and safetensors of a language model in {source}, found {held}; {_FETCH}."
        )
    try:
        yield
    except R1Error:
        raise
    except (OSError, SafetensorError, ValueError) as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise MissingError(
            f"Expected a whole pretrained language model in {source}, found one that does not load: {first.rstrip('.')}; fetch it again."
        ) from None


_FETCH = "`make pretrained` fetches the one of profile pretrained"

_WHOLE_WORD = re.compile(" [A-Z][a-z]{3,}")


@torch.no_grad()
def start_from_words(model: R1ForConditionalGeneration, tokenizer: PreTrainedTokenizerBase) -> None:
    """Fill the rows of added tokens in a pretrained vocabulary: tags from their pieces, identifiers from words.

    Padding rows of a published vocabulary are all alike, and so is the mean of the pieces of "object 17" for every
    number. A frequent capitalised word a slot gives each identifier a direction of its own that the language model has
    learnt to copy.
    """
    added = added_tokens(model.config.num_objects)
    ids = torch.tensor(token_ids(tokenizer, added))
    tags = len(added) - model.config.num_objects
    pieces = [tokenizer(re.findall("</?|[a-z]+|>", tag), add_special_tokens=False)["input_ids"] for tag in added[:tags]]
    sources = [[i for part in tag for i in part] for tag in pieces]
    sources += [[word] for word in _distinct_words(tokenizer, model.config.num_objects)]
    words, head = (next(part.parameters()) for part in (model.get_input_embeddings(), model.lm_head))
    for table in {words, head}:
        rows = torch.stack([table[source].float().mean(dim=0) for source in sources])
        table[ids] = rows.to(table.dtype)
    for own, table in ((model.model.input_rows, words), (model.output_rows, head)):
        if own is not None:
            own.weight.copy_(table[own.token_ids])


def _distinct_words(tokenizer: PreTrainedTokenizerBase, count: int) -> list[int]:
    """The first `count` tokens that are a whole capitalised word; in a small vocabulary, whatever tokens come first."""
    own = [i for i in range(len(tokenizer)) if i not in tokenizer.added_tokens_decoder]
    words: list[int] = []
    for token in own:
        if _WHOLE_WORD.fullmatch(tokenizer.decode([token])):
            words.append(token)
        if len(words) == count:
            return words
    others = [token for token in own if token not in set(words)]
    if len(words) + len(others) < count:
        raise ModelError(
            f"Expected a vocabulary of at least {count} tokens, one an object, found {len(own)} in the tokenizer."
        )
    return words + others[: count - len(words)]


def text_config(model: Model, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """The language model's configuration: the pretrained one's, or one of the sizes in params.

    A vision-language checkpoint gives its language part's.
    """
    if model.language is not None:
        with _explained(model.language):
            published = AutoConfig.from_pretrained(model.language, revision=model.revision)
        config = published.get_text_config()
        if config.vocab_size < (own := len(tokenizer) - len(added_tokens(model.num_objects)) - 1):
            raise ModelError(
                f"Expected embeddings for all {own} tokens of the tokenizer in {model.language}, found {config.vocab_size} rows."
            )
        config.vocab_size = max(config.vocab_size, len(tokenizer))
        config.tie_word_embeddings = published.tie_word_embeddings  # Qwen2.5-VL's 3B has one matrix, its 7B two
        return config
    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=model.hidden_size,
        intermediate_size=model.intermediate_size,
        num_hidden_layers=model.num_hidden_layers,
        num_attention_heads=model.num_attention_heads,
        num_key_value_heads=model.num_key_value_heads,
        initializer_range=model.initializer_range,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 1.0e6},  # Qwen2.5's: what is alike stays alike far apart
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


@torch.no_grad()
def look_for_likes(model: R1ForConditionalGeneration) -> None:
    """Start a fresh language model's attention at "find what is like me and copy it" (mimetic initialisation).

    Keys equal queries and the output undoes the value (Trockman and Kolter, ICML 2023), so that `<obj_007>` in a
    question looks at the object of that name from the first step; feed-forward layers start quieter than what is
    copied. Measured on the tiny profile: captions by identifier are learnt in 400 steps instead of 700.
    """
    for block in model.model.language_model.layers:
        attention = block.self_attn
        attention.k_proj.weight.copy_(attention.q_proj.weight[: attention.k_proj.weight.shape[0]])
        attention.o_proj.weight[:, : attention.v_proj.weight.shape[0]] = attention.v_proj.weight.T
        block.mlp.down_proj.weight.mul_(0.3)
