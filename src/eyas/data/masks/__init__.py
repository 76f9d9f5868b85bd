"""Token ids and labels of a conversation, for any chat template.

A template is a program, so its source is not parsed. It is rendered with and without each answer instead, over growing
parts of the conversation; the difference is the answer.
"""

from eyas.data.masks.conversation import Chat
from eyas.data.masks.encode import IGNORED, Encoded, encode_chats

__all__ = ["IGNORED", "Chat", "Encoded", "encode_chats"]
