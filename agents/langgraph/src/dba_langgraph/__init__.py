"""A database assistant in LangGraph that asks its user before it destroys.

It is an agent that kagent runs from an image ("bring your own"). What belongs where:

``settings``    what it is told when it starts
``approval``    the question to the user and their decision, in kagent's form; pure
``history``     a conversation as the model's API wants it, whatever has happened in it; pure
``graph``       the order of things: model, question, calls
``tools``       the calls, over MCP, in the name of whoever asks
``storage``     where tasks and checkpoints are kept: in kagent's controller, or in memory
``work``        one task at work: from what was said to the next question, or to the end
``agent``       tasks over A2A: whose they are, and who may decide
``app``         the HTTP server
"""

__version__ = "0.1.0"
