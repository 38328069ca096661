"""The prompt templates as text files, and their safe rendering to token ids.

`template.py` turns a template and a question into chat messages, `tokenizer.py` turns messages into ids.
Text from a dataset or a model travels as :class:`~orch_local.prompts.data.Data` all the way and can
never become a control token.
"""

__all__ = [
    "answer_forms",
    "arrival",
    "chat_template",
    "data",
    "tasks",
    "template",
    "thoughts",
    "tokenizer",
]
