"""What an answer hangs on: maps by several methods, and how far each can be believed."""
