"""A model's tokenizer and chat template, read from its folder without torch and without remote code.

Safe encoding: a prompt is first encoded as the tokenizer does it natively. If the data in it moved no
control token, those ids are the canonical ones. If it did (the text holds ``<|im_end|>``, say), the prompt
is encoded piece by piece: control tokens come from the trusted pieces alone, all other text goes through a
copy of the tokenizer in which no text spells a control token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from orch_local.errors import ModelError, PromptError
from orch_local.models.folders import TOKENIZER_FILES
from orch_local.prompts.chat_template import Reading, read_template, render_chat
from orch_local.prompts.data import Data
from orch_local.prompts.probing import probe
from orch_local.prompts.template import Message, builtin_names, builtin_text
from orch_local.prompts.tokenizer_files import (
    DOWNLOAD,
    LONGEST_MESSAGE,
    added_by,
    chat_template,
    json_file,
    read,
    special_names,
)

# Added tokens that stand for plain text: runs of white space (U+2581 is SentencePiece's space), single bytes.
_FILLER = re.compile(r"[\s\u2581]*|<0x[0-9A-F]{2}>")
_PROBE = "Does this text arrive?"


def open_tokenizer(folder: Path) -> PromptTokenizer:
    """The tokenizer of a model folder, built once for each state of its files: a large one takes a while.

    Raises
    ------
    ModelError
        See :class:`PromptTokenizer`.
    """
    return _opened(folder, tuple(map(_state, (folder / name for name in TOKENIZER_FILES))))


@lru_cache(maxsize=8)
def _opened(folder: Path, _states: tuple[object, ...]) -> PromptTokenizer:
    return PromptTokenizer(folder)


def _state(file: Path) -> object:
    try:
        state = file.stat()
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns


class PromptTokenizer:
    """Messages to token ids and back.

    Raises
    ------
    ModelError
        If the folder has no readable ``tokenizer.json``, chat template or end-of-sequence token.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        serialised = read(folder / "tokenizer.json")
        self._config = json_file(folder / "tokenizer_config.json")
        added = added_by(self._config, folder)
        probe(serialised, added, [builtin_text(name) for name in builtin_names()], folder / "tokenizer.json")
        self._native = _build(serialised, folder, added)
        self._names = special_names(folder, self._config)
        self.chat_template = chat_template(folder, self._config)
        self.eos_id = self._end_of_sequence()
        self._split_before: dict[str, list[str | int]] = {}

    def _end_of_sequence(self) -> int:
        found = self._native.token_to_id(self._names.get("eos_token", ""))
        if found is None:
            raise ModelError(
                "names no end-of-sequence token",
                where=str(self.folder / "tokenizer_config.json"),
                hint="add `eos_token` as on the model's hub page",
            )
        return int(found)

    @cached_property
    def controls(self) -> dict[int, Any]:
        """Added tokens by id, except those that stand for white space or bytes of plain text."""
        added = self._native.get_added_tokens_decoder()
        return {index: token for index, token in added.items() if not _FILLER.fullmatch(token.content)}

    def chat(self, messages: Sequence[Message], options: Mapping[str, Any]) -> str:
        """Apply the chat template, with the turn of the assistant opened at the end.

        Raises
        ------
        PromptError
            If the template refuses the messages (for example a system turn), or needs more time or memory
            than a template has any use for.
        """
        return self._rendered(messages, options, parts=self.takes_parts)

    @cached_property
    def reading(self) -> Reading:
        """What the chat template takes from outside.

        Raises
        ------
        PromptError
            If it is no Jinja2, or nothing that can be read in bounded time and memory.
        """
        try:
            return read_template(self.chat_template)
        except PromptError as error:
            error.where = str(self.folder)
            raise

    @cached_property
    def takes_parts(self) -> bool:
        """Whether the chat template gets the content of a message as a list of parts, not as a text.

        As vLLM decides it, by loops over the content; the other way where a user turn arrives in no other.
        """
        found = self.reading.parts
        return found if self._arrives(parts=found) or not self._arrives(parts=not found) else not found

    def _arrives(self, *, parts: bool) -> bool:
        """Whether the text of a user turn comes through the chat template."""
        try:
            chat = self._rendered([Message("user", _PROBE)], {}, parts=parts)
        except PromptError:
            return False
        return _PROBE in chat and "'type'" not in chat  # a list that was written as Python writes it

    def _rendered(self, messages: Sequence[Message], options: Mapping[str, Any], *, parts: bool) -> str:
        try:
            return render_chat(self.chat_template, messages, self._names, options, parts=parts)
        except PromptError as error:
            error.where = str(self.folder)
            raise

    def encode(self, pieces: Sequence[str]) -> list[int]:
        """Token ids of a prompt given as trusted pieces (``str``) and data (``Data``).

        The control tokens of the result are those of the trusted pieces, whatever the data holds.

        Raises
        ------
        PromptError
            If the tokenizer gives up on the text.
        """
        ids = self._plain_ids(self._native, "".join(pieces))
        if self._controls_of(ids) == self._expected_controls(pieces):
            return ids
        return self._encode_apart(pieces)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, without special tokens."""
        return str(self._native.decode(list(ids), skip_special_tokens=True))

    def before(self, ids: Sequence[int], text: str) -> list[int]:
        """Generated ids up to where ``text`` begins; all of them where it does not occur.

        A token that reaches into ``text`` is replaced by tokens of its characters before it. There are never
        more ids than were given.
        """
        whole = self.decode(ids)
        kept, found, _ = whole.partition(text)
        if not found:
            return list(ids)
        count = len(ids)
        while not kept.startswith(start := self.decode(ids[:count])):
            count -= 1
        cut = [*ids[:count], *self._text_ids(kept[len(start) :])]
        return cut if self.decode(cut) == kept and len(cut) <= len(ids) else list(ids[:count])

    def token_text(self, index: int) -> str:
        """Vocabulary entry of an id: its text for ASCII, but for white space, and of the same length then."""
        entry = self._native.id_to_token(index) or ""
        return "\n" if entry == "<0x0A>" else entry

    def trusted_ids(self, text: str) -> list[int]:
        """Ids of a text of ours, control tokens included (a thinking tag, say)."""
        return self._plain_ids(self._native, text)

    def _plain_ids(self, tokenizer: Tokenizer, text: str) -> list[int]:
        try:
            return list(tokenizer.encode(_encodable(text), add_special_tokens=False).ids)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a panic of the library, as where a pattern backtracks too often
            message = f"the tokenizer gives up on a text of {len(text):,} characters: {error}"
            raise PromptError(message[:LONGEST_MESSAGE], where=str(self.folder)) from None

    def _controls_of(self, ids: Iterable[int]) -> list[int]:
        return [index for index in ids if index in self.controls]

    def _expected_controls(self, pieces: Sequence[str]) -> list[int]:
        trusted = (piece for piece in pieces if not isinstance(piece, Data))
        return [part for piece in trusted for part in self._split(piece) if isinstance(part, int)]

    def _split(self, trusted: str) -> list[str | int]:
        """Cut a trusted text at its control tokens, which become ids; the same texts come again and again."""
        if trusted not in self._split_before:
            pattern = self._control_pattern
            parts = pattern.split(trusted) if pattern else [trusted]
            self._split_before[trusted] = [
                self._control_ids[p] if i % 2 else p for i, p in enumerate(parts) if p
            ]
        return self._split_before[trusted]

    def _encode_apart(self, pieces: Sequence[str]) -> list[int]:
        ids: list[int] = []
        run = ""
        for part in self._parts(pieces):
            if isinstance(part, str):
                run += part
                continue
            ids += self._text_ids(_stripped(run, ids, self.controls.get(part), self.controls))
            ids.append(part)
            run = ""
        return ids + self._text_ids(_stripped(run, ids, None, self.controls))

    def _parts(self, pieces: Sequence[str]) -> Iterable[str | int]:
        for piece in pieces:
            if isinstance(piece, Data):
                yield str(piece)
            else:
                yield from self._split(piece)

    def _text_ids(self, text: str) -> list[int]:
        """Ids of plain text. No control token is left in, even if the copy should make one after all."""
        ids = self._plain_ids(self._plain, text) if text else []
        return [index for index in ids if index not in self.controls or index == self._unknown_id]

    @cached_property
    def _control_ids(self) -> dict[str, int]:
        return {token.content: index for index, token in self.controls.items()}

    @cached_property
    def _control_pattern(self) -> re.Pattern[str] | None:
        longest_first = sorted(self._control_ids, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, longest_first))})") if longest_first else None

    @cached_property
    def _serialised(self) -> str:
        return self._native.to_str()

    @cached_property
    def _unknown_id(self) -> int | None:
        """What the model itself writes for a character that it does not know; no control token there."""
        model = json.loads(self._serialised)["model"]
        index = model.get("unk_id")
        return self._native.token_to_id(model.get("unk_token") or "") if index is None else int(index)

    @cached_property
    def _plain(self) -> Tokenizer:
        """The tokenizer with its control tokens muted."""
        parts = json.loads(self._serialised)
        _mute_added(parts["added_tokens"], self.controls)
        _mute_vocabulary(parts["model"], self.controls)
        parts["pre_tokenizer"] = _inside(parts["pre_tokenizer"])
        parts["post_processor"] = None
        return _build(json.dumps(parts), self.folder)


def _muted(index: int) -> str:
    """A name that no text has, for U+FDD0 is no character. The id stays, or all ids behind it would move."""
    return f"\ufdd0{index}\ufdd0"


def _mute_added(added: Iterable[dict[str, Any]], controls: Container[int]) -> None:
    for token in added:
        if token["id"] in controls:
            token["content"] = _muted(token["id"])


def _mute_vocabulary(model: dict[str, Any], controls: Container[int]) -> None:
    """Some vocabularies hold their control tokens as ordinary entries, which plain text may spell."""
    entries = model["vocab"]
    if isinstance(entries, list):  # Unigram: pairs of entry and score
        model["vocab"] = [
            [_muted(i) if i in controls else text, score] for i, (text, score) in enumerate(entries)
        ]
        return
    new_names = {text: _muted(index) for text, index in entries.items() if index in controls}
    if new_names:
        model["vocab"] = {new_names.get(text, text): index for text, index in entries.items()}
        model["unk_token"] = new_names.get(model.get("unk_token"), model.get("unk_token"))
        if "merges" in model:
            model["merges"] = [
                merge for merge in model["merges"] if new_names.keys().isdisjoint(_parts_of(merge))
            ]


def _parts_of(merge: str | list[str]) -> tuple[str, str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right, left + right


def _inside(step: Any) -> Any:
    """A pre-tokenizer as it works behind a control token, where Metaspace's ``first`` puts no space."""
    if not isinstance(step, dict):
        return step
    inner = [_inside(other) for other in step.get("pretokenizers", ())]
    first = {"prepend_scheme": "never"} if step.get("prepend_scheme") == "first" else {}
    return step | first | ({"pretokenizers": inner} if inner else {})


def _encodable(text: str) -> str:
    """The text with each lone surrogate, which UTF-8 cannot carry, as a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8") if not text.isascii() else text


def _stripped(run: str, before: Sequence[int], after: Any, controls: Mapping[int, Any]) -> str:
    """Apply the ``rstrip`` of the control token before a run and the ``lstrip`` of the one behind it."""
    if before and before[-1] in controls and controls[before[-1]].rstrip:
        run = run.lstrip()
    return run.rstrip() if after is not None and after.lstrip else run


def _build(serialised: str, folder: Path, added: Sequence[AddedToken] = ()) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(serialised)
        tokenizer.add_tokens(list(added))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - the library raises bare Exception, and panics
        where = str(folder / "tokenizer.json")
        message = f"is not a tokenizer: {error}"[:LONGEST_MESSAGE]
        raise ModelError(message, where=where, hint=DOWNLOAD) from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
