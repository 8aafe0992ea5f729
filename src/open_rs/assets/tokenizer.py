"""The tiny model's tokenizer: a Qwen2 tokenizer whose vocabulary is the 256 bytes and a few merges learned here.

`AutoTokenizer` gives every checkpoint of type qwen2 the class `Qwen2Tokenizer`, whatever its files say, so this one is
made as such: text is normalised to NFC, split as Qwen2 splits it (one token a digit), and nothing is ever unknown.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken
from transformers import Qwen2Tokenizer

PAD, TURN, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = (PAD, TURN, STOP)
WHOLE = ("<think>", "</think>", "\\boxed{")
NUM_BYTES = 256
NUM_MERGES = 64
CONTEXT_LENGTH = 2048

# As in DeepSeek-R1's template, earlier reasoning is cut from the history and the prompt ends inside an open `<think>`.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{%- if message['role'] == 'assistant' -%}{{ message['content'].split('</think>')[-1].lstrip('\n') }}"
    "{%- else -%}{{ message['content'] }}{%- endif -%}"
    "{{ '<|im_end|>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n<think>\n' }}{%- endif -%}"
)


def make_tokenizer(corpus: Iterable[str]) -> Qwen2Tokenizer:
    """Learn the merges from `corpus`; digits never merge.

    `<think>`, `</think>` and `\\boxed{` are whole tokens that decoding keeps. The stop and padding tokens differ.
    """
    untrained = Qwen2Tokenizer(vocab={PAD: 0}, merges=[], eos_token=STOP, pad_token=PAD)
    tokenizer = untrained.train_new_from_iterator(corpus, vocab_size=len(SPECIAL) + NUM_BYTES + NUM_MERGES)
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in WHOLE])
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.model_max_length = CONTEXT_LENGTH
    return tokenizer
