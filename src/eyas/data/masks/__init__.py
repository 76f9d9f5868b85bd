"""Token ids and labels of a conversation, for any chat template.

A template is a program of its author's, so nothing is read out of its source. It is run over growing parts of the
conversation instead: what an answer adds to the prompt that comes before it is what the model will have to write there.
"""

from eyas.data.masks.conversation import Chat
from eyas.data.masks.encode import IGNORED, Encoded, encode_chats

__all__ = ["IGNORED", "Chat", "Encoded", "encode_chats"]
